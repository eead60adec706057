import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from altdiffusion_clip.training.loop import LoopConfig, optimise, step_generator


def regression(module: nn.Module):
    def loss_at(generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(8, 4, generator=generator)
        return (module(x) - x.sum(1, keepdim=True)).square().mean()

    return loss_at


def new_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.Tanh(), nn.Linear(16, 1))


CONFIG = LoopConfig(steps=60, learning_rate=1e-2, warmup_steps=5, ema_decay=0.9)


def test_it_learns(tmp_path: Path) -> None:
    module = new_module()
    loss_at = regression(module)
    before = loss_at(step_generator(9, 0)).item()
    optimise(module, loss_at, LoopConfig(steps=300, learning_rate=1e-2), tmp_path / "a.pt")
    assert loss_at(step_generator(9, 0)).item() < 0.2 * before


def test_the_same_run_twice_is_the_same(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        module = new_module()
        results.append(optimise(module, regression(module), CONFIG, tmp_path / f"{name}.pt").state_dict())
    for key in results[0]:
        assert torch.equal(results[0][key], results[1][key])


RUN = """
import os, sys, threading
from pathlib import Path
from altdiffusion_clip.training.loop import LoopConfig, optimise
from tests.training.test_loop import CONFIG, new_module, regression
import dataclasses, torch
module = new_module()
loss = regression(module)
stop_at, calls = int(sys.argv[2]), 0
def loss_at(generator):
    global calls
    calls += 1
    if calls == stop_at:
        os.kill(os.getpid(), 9)
    return loss(generator)
config = dataclasses.replace(CONFIG, checkpoint_seconds=0.0)
trained = optimise(module, loss_at, config, Path(sys.argv[1]))
torch.save({"module": module.state_dict(), "average": trained.state_dict()}, sys.argv[1] + ".done")
"""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}

    def run(name: str, stop_at: int) -> int:
        command = [sys.executable, "-c", textwrap.dedent(RUN), str(tmp_path / name), str(stop_at)]
        return subprocess.run(command, capture_output=True, env=environment, timeout=120).returncode

    assert run("whole", -1) == 0
    for stop_at in (7, 20):
        assert run("killed", stop_at) == -9
    assert run("killed", -1) == 0
    whole, killed = (torch.load(tmp_path / f"{name}.done", weights_only=True) for name in ("whole", "killed"))
    for part in ("module", "average"):
        for key, tensor in whole[part].items():
            assert torch.equal(tensor, killed[part][key]), f"{part} {key}"


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    module = new_module()
    module[0].requires_grad_(False)
    before = module[0].weight.clone()
    optimise(module, regression(module), CONFIG, tmp_path / "a.pt")
    assert torch.equal(module[0].weight, before)


def test_a_loss_that_is_not_finite_is_skipped(tmp_path: Path, caplog) -> None:
    module = new_module()
    loss_at, calls = regression(module), []

    def sometimes(generator: torch.Generator) -> torch.Tensor:
        calls.append(0)
        return loss_at(generator) * (torch.nan if len(calls) == 3 else 1)

    optimise(module, sometimes, CONFIG, tmp_path / "a.pt")
    assert caplog.text.count("not finite") == 1
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_loss_that_stays_not_finite_ends_the_run(tmp_path: Path) -> None:
    module = new_module()
    loss_at = regression(module)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        optimise(module, lambda g: loss_at(g) * torch.nan, CONFIG, tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_an_unusable_checkpoint_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    if content is None:
        torch.save({"module": nn.Linear(2, 2).state_dict()}, path)
    else:
        path.write_bytes(content)
    module = new_module()
    with pytest.raises(ValueError, match=r"a\.pt is not a checkpoint of this stage"):
        optimise(module, regression(module), CONFIG, path)


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = LoopConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_from=0.5)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[49] == 1.0
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 0.01
