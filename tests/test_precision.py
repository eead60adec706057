"""A processor that is slow in half precision: nobody waits for it without being told."""

import json
from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltDiffusionPipeline, precision
from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.recipe import faster_precision
from altdiffusion_clip.judges.encoding import fastest_dtype
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.training.accelerators import new_accelerator
from altdiffusion_clip.training.config import RunConfig


@pytest.fixture(autouse=True)
def measure_again():
    precision.slowdown.cache_clear()
    yield
    precision.slowdown.cache_clear()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX2 alone."""
    monkeypatch.setattr(precision, "_seconds", lambda dtype: 0.003 if dtype == torch.float32 else 0.150)


def test_it_is_measured_on_a_cpu_and_not_on_a_gpu() -> None:
    assert precision.slowdown(torch.bfloat16) > 0
    assert precision.slowdown(torch.bfloat16) != 1.0
    assert precision.slowdown(torch.float32) == 1.0
    assert precision.slowdown(torch.float16, "cuda") == 1.0


def test_measuring_draws_no_random_number() -> None:
    """A seed gives the same picture, whether or not it was measured before."""
    before = torch.get_rng_state()
    precision.slowdown(torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_command_says_so_in_one_line(
    dtype: str, quick_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["猫", "--steps", "1", "--num-images", "2", "--judge", "none", "--model", str(quick_model), "--json"]
    assert main(["generate", *common, "--dtype", dtype, "--output", str(tmp_path / "half")]) == 0
    said = capsys.readouterr()
    assert said.err.count(f"this processor has no fast arithmetic in {dtype}; float32 is 50 times as fast here") == 1
    assert all(json.loads(line) for line in said.out.splitlines())
    assert main(["generate", *common, "--output", str(tmp_path / "whole")]) == 0
    assert "arithmetic" not in capsys.readouterr().err


@pytest.mark.usefixtures("slow")
def test_a_training_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new_accelerator(RunConfig(output=tmp_path, mixed_precision="bf16"))
    assert "no fast arithmetic in bf16; --mixed-precision no is 50 times as fast here" in caplog.text
    caplog.clear()
    new_accelerator(RunConfig(output=tmp_path))
    assert caplog.text == ""


@pytest.mark.usefixtures("slow")
def test_nothing_is_tried_that_would_take_minutes(quick_model: Path) -> None:
    seen = []
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    judge = load_panel([str(quick_model)], torch.device("cpu"), pipeline=pipe).members[0]
    for module in (pipe.unet, *judge.modules.values()):
        module.register_forward_pre_hook(lambda module, args: seen.append(module))
    pipe.optimize()
    assert pipe.unet.dtype == fastest_dtype(judge) == torch.float32
    assert seen == []


def test_the_recipe_takes_what_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for half, expected in ((0.150, "no"), (0.0025, "no"), (0.001, "bf16")):
        seconds = {torch.float32: 0.003, torch.bfloat16: half}
        monkeypatch.setattr(precision, "_seconds", seconds.__getitem__)
        precision.slowdown.cache_clear()
        assert faster_precision() == expected
