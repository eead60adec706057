"""Training on an accelerator: the losses of the CPU. Run by test_placement.py."""

# isort: off
from tests.accelerators.device import DEVICE, NEAR

# isort: on
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18
from altdiffusion_clip.training.add_language import add_language
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.configs import (
    AddLanguageConfig,
    AlignConfig,
    ContrastiveConfig,
    DistillConfig,
    DreamBoothConfig,
    LoraConfig,
)
from altdiffusion_clip.training.contrastive import contrastive
from altdiffusion_clip.training.distill import distill
from altdiffusion_clip.training.dreambooth import dreambooth
from altdiffusion_clip.training.lora import train_lora
from altdiffusion_clip.training.metrics import read_metrics
from tests.training.worlds import PIPELINE, write_parallel, write_pictures, write_student, write_teacher

STEPS: dict[str, Any] = {"steps": 3, "learning_rate": 1e-3, "warmup_steps": 1, "log_every": 1}


def towers(folder: Path) -> dict[str, str]:
    return {"teacher": str(write_teacher(folder / "teacher")), "student": str(write_student(folder / "student"))}


def of_pictures(folder: Path, **more: object) -> dict[str, Any]:
    given = {"model": str(PIPELINE), "data": [write_pictures(folder / "pictures")], "resolution": 32, "batch_size": 4}
    return {"output": folder / "run", **given, **STEPS, **more}


def run_distill(folder: Path) -> None:
    data = [write_parallel(folder / "parallel.jsonl")]
    more = {"batch_size": 16, "validation": data, "validate_every": 2}
    distill(DistillConfig(output=folder / "run", data=data, **towers(folder), **more, **STEPS))


def run_contrastive(folder: Path, **more: object) -> None:
    data = [write_pictures(folder / "pictures")]
    more = {"batch_size": 16, "validation": data, "validate_every": 2, **more}
    contrastive(ContrastiveConfig(output=folder / "run", data=data, **towers(folder), **more, **STEPS))


def run_dreambooth(folder: Path) -> None:
    things = folder / "things"
    things.mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (60 * number, 0, 0)).save(things / f"{number}.png")
    said = {"instance_prompt": "a sks cat", "class_prompt": "a cat", "class_images": 1}
    given = {"model": str(PIPELINE), "instance_images": things, "resolution": 32, "batch_size": 4}
    dreambooth(DreamBoothConfig(output=folder / "run", **given, **said, **STEPS))


def run_add_language(folder: Path) -> None:
    new, old = (write_parallel(folder / f"{name}.jsonl") for name in ("new", "old"))
    add_language(
        AddLanguageConfig(output=folder / "run", model=EMOJI_M18, data=[new], replay=[old], batch_size=4, **STEPS)
    )


RUNS: dict[str, Callable[[Path], object]] = {
    "stage 1": run_distill,
    "stage 2": run_contrastive,
    "stage 2, pictures anew": lambda folder: run_contrastive(folder, augment=True),
    "stage 2, in parts": lambda folder: run_contrastive(folder, gradient_accumulation_steps=4),
    "alignment": lambda folder: align(
        AlignConfig(**of_pictures(folder, ema_decay=0.9, sample_prompts=["cat"], validate_every=3))
    ),
    "alignment, states kept": lambda folder: align(
        AlignConfig(**of_pictures(folder, cache_text_states=True, keys_and_values_steps=2))
    ),
    "LoRA": lambda folder: train_lora(LoraConfig(**of_pictures(folder, train_text_encoder=True))),
    "DreamBooth": run_dreambooth,
    "another language": run_add_language,
}


@pytest.mark.skipif(DEVICE != "cuda", reason="recordings are CUDA's")
def test_a_recorded_step_is_the_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    losses = []
    for name in ("recorded", "plain"):
        PartialState._reset_state()
        AcceleratorState._reset_state(reset_partial_state=True)
        (tmp_path / name).mkdir()
        with caplog.at_level("INFO"):
            align(AlignConfig(**of_pictures(tmp_path / name, steps=12, compile=name == "recorded", ema_decay=0.9)))
        losses.append([line["loss"] for line in read_metrics(tmp_path / name / "run") if "loss" in line])
    assert "the training step is recorded" in caplog.text
    assert len(losses[0]) == 12
    assert losses[0] == pytest.approx(losses[1], rel=10 * NEAR)


@pytest.mark.parametrize("name", RUNS)
def test_the_losses_are_the_cpus(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for device in ("cpu", DEVICE):
        PartialState._reset_state()
        AcceleratorState._reset_state(reset_partial_state=True)
        # accelerate looks for the devices that it knows.
        monkeypatch.setattr(PartialState, "default_device", property(lambda _, device=device: torch.device(device)))
        (tmp_path / device).mkdir()
        RUNS[name](tmp_path / device)
        losses.append([line["loss"] for line in read_metrics(tmp_path / device / "run") if "loss" in line])
    assert len(losses[0]) >= 3
    assert losses[1] == pytest.approx(losses[0], rel=10 * NEAR)
