"""Runs that share a folder of precomputed data compute them once, and never use those of other inputs."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPModel

from altdiffusion_clip.files import lock_of
from altdiffusion_clip.training import diffusion as diffusion_module
from altdiffusion_clip.training import distill as distill_module
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.configs import AlignConfig, DistillConfig
from altdiffusion_clip.training.data import arrays as arrays_module
from altdiffusion_clip.training.data.arrays import fill_rows, path_for
from altdiffusion_clip.training.distill import distill
from tests.processes import forkserver
from tests.training.worlds import PIPELINE, write_parallel, write_pictures, write_student, write_teacher


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        output=tmp_path / "first",
        cache=str(tmp_path / "cache"),
        teacher=str(write_teacher(tmp_path / "teacher")),
        student=str(write_student(tmp_path / "student")),
        data=[write_parallel(tmp_path / "parallel.jsonl")],
        steps=2,
        batch_size=4,
    )


def files(config: DistillConfig | AlignConfig, pattern: str) -> list[Path]:
    return sorted(Path(config.cache).glob(f"*/{pattern}"))


def test_another_run_reads_nothing_again(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    distill(config)
    monkeypatch.setattr(distill_module, "teacher_embeds", None)
    monkeypatch.setattr("altdiffusion_clip.training.data.parallel._write", None)
    other = replace(config, output=config.output.with_name("second"), learning_rate=1e-3)
    model = distill(other)
    assert isinstance(model, Path)
    assert "parallel.jsonl" in (model / "README.md").read_text("utf-8"), "its card names the data"
    assert len(files(config, "teacher-*.bin")) == 1
    assert not list((config.output / "data").rglob("*.bin"))


def test_other_data_and_another_teacher_get_places_of_their_own(config: DistillConfig, tmp_path: Path) -> None:
    distill(config)
    (before,) = files(config, "teacher-*.bin")
    embeds = before.read_bytes()
    clip = CLIPModel.from_pretrained(config.teacher)
    with torch.no_grad():
        clip.text_model.final_layer_norm.weight.mul_(2)
    clip.save_pretrained(config.teacher)  # the same path with other weights
    distill(replace(config, output=tmp_path / "second"))
    assert len(files(config, "teacher-*.bin")) == 2
    lines = config.data[0].read_text("utf-8").splitlines(keepends=True)
    config.data[0].write_text("".join(lines[:-1]), "utf-8")
    distill(replace(config, output=tmp_path / "third"))
    assert len(files(config, "made_from.json")) == 2
    assert before.read_bytes() == embeds


def test_another_scale_or_precision_is_another_model(tmp_path: Path) -> None:
    vae = AutoencoderKL(norm_num_groups=1, block_out_channels=(1,), scaling_factor=0.5)
    scaled = AutoencoderKL(norm_num_groups=1, block_out_channels=(1,), scaling_factor=0.25)
    scaled.load_state_dict(vae.state_dict())
    first, second = (path_for(tmp_path / "latents.bin", each, True) for each in (vae, scaled))
    assert first != second
    assert path_for(tmp_path / "latents.bin", vae, True) == first
    assert path_for(tmp_path / "latents.bin", vae.to(torch.bfloat16), True) != first
    assert path_for(tmp_path / "latents.bin", vae, False).name == "latents.bin"


def test_latents_and_states_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AlignConfig(
        output=tmp_path / "first",
        cache=str(tmp_path / "cache"),
        model=str(PIPELINE),
        data=[write_pictures(tmp_path / "pictures")],
        resolution=16,
        cache_text_states=True,
        steps=2,
        batch_size=4,
    )
    align(config)
    latents, states = files(config, "latents-*.bin"), files(config, "states-*")
    assert len(latents) == 1
    assert [path.is_dir() for path in states if not path.name.endswith(".lock")] == [True]
    monkeypatch.setattr(diffusion_module, "read_pixels", None)
    monkeypatch.setattr("altdiffusion_clip.training.conditioning.Conditioning.write", None)
    align(replace(config, output=tmp_path / "second"))
    weights = [tmp_path / run / "model" / "unet" / "diffusion_pytorch_model.safetensors" for run in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_of_two_runs_at_once_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    calls: list[int] = []
    computing = threading.Event()

    def compute(start: int, stop: int) -> torch.Tensor:
        calls.append(start)
        computing.wait(0.2)
        return torch.arange(start, stop).float()

    found: list[np.ndarray] = []

    def run() -> None:
        found.append(fill_rows(tmp_path / "a.bin", 6, (), "float32", compute, chunk=2, is_shared=True))

    runs = [threading.Thread(target=run) for _ in range(3)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert calls == [0, 2, 4]
    assert [rows.tolist() for rows in found] == [[0, 1, 2, 3, 4, 5]] * 3


def fill_slowly(path: Path, log: Path) -> None:
    """In a process of its own: notes each chunk before it computes it."""

    def compute(start: int, stop: int) -> torch.Tensor:
        with log.open("a") as file:
            file.write(f"{start}\n")
        time.sleep(0.2)
        return torch.arange(start, stop).float()

    arrays_module.FLUSH_SECONDS = 0.0
    fill_rows(path, 12, (), "float32", compute, chunk=2, is_shared=True)


def started(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_when_the_run_that_computes_is_killed_one_that_waits_goes_on(tmp_path: Path) -> None:
    path, logs = tmp_path / "a.bin", [tmp_path / "first", tmp_path / "second"]
    first, second = (forkserver().Process(target=fill_slowly, args=(path, log)) for log in logs)
    first.start()
    wait_until(lambda: len(started(logs[0])) >= 3)
    second.start()
    wait_until(lambda: len(started(logs[0])) >= 4)
    assert not started(logs[1]), "it waits"
    first.kill()
    first.join()
    second.join()
    assert second.exitcode == 0
    assert np.fromfile(path, "float32").tolist() == list(range(12))
    assert not set(started(logs[0])[:-2]) & set(started(logs[1])), "what was flushed is not computed again"


def test_a_run_that_waits_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.bin"
    lock = lock_of(path.with_name("a.bin.lock"), "taken")
    waiting = threading.Thread(
        target=fill_rows, args=(path, 1, (), "float32", lambda *_: torch.zeros(1)), kwargs={"is_shared": True}
    )
    waiting.start()
    wait_until(lambda: bool(caplog.messages))
    lock.release()
    waiting.join()
    assert caplog.messages == [f"another run is making {path}; this one waits for it"]


def test_a_full_disk_leaves_the_cache_to_the_next_run(config: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(config.output.parent)
    with monkeypatch.context() as full, pytest.raises(OSError, match="has too little room"):
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        distill(config)
    distill(replace(config, output=config.output.with_name("second")))
    assert len(files(config, "teacher-*.bin")) == 1
