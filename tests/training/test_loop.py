import dataclasses
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn

from altdiffusion_clip.errors import CheckpointError, UserError
from altdiffusion_clip.training.accelerators import new_accelerator
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.loop import Stopped, Tensors, optimise, step_generator
from altdiffusion_clip.training.metrics import read_metrics


class Regression(nn.Module):
    """Learns the sum of four numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.1), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.layers(x) - x.sum(1, keepdim=True)).square().mean()


class Numbers:
    """Four random numbers an example; those of some steps may be bad."""

    def __init__(self, count: int = 8, bad: frozenset[int] | range = frozenset()) -> None:
        self.count, self.bad, self.loads = count, bad, 0

    def draw(self, generator: torch.Generator) -> Tensors:
        return {"x": torch.randn(self.count, 4, generator=generator)}

    def load(self, drawn: Tensors) -> Tensors:
        self.loads += 1
        return {"x": drawn["x"] * torch.nan} if self.loads in self.bad else drawn


def config(folder: Path, **changes: object) -> RunConfig:
    plain = {"steps": 60, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 5, "ema_decay": 0.9, "log_every": 1}
    return RunConfig(output=folder, **{**plain, **changes})  # type: ignore[arg-type]


def test_it_learns(tmp_path: Path) -> None:
    module, some = Regression(), Numbers().draw(step_generator(9, 0))
    before = module(**some).item()
    trained = optimise(module, Numbers(), config(tmp_path, steps=300, ema_decay=0.0), "test")
    assert trained is module
    assert module(**some).item() < 0.2 * before


def test_the_same_run_twice_is_the_same(tmp_path: Path) -> None:
    results = [optimise(Regression(), Numbers(), config(tmp_path / name), "test").state_dict() for name in "ab"]
    for key in results[0]:
        assert torch.equal(results[0][key], results[1][key])


@pytest.mark.parametrize("parts", [1, 2])
def test_workers_read_what_this_process_would(parts: int, tmp_path: Path) -> None:
    results = [
        optimise(
            Regression(),
            Numbers(),
            config(tmp_path / str(workers), workers=workers, gradient_accumulation_steps=parts),
            "test",
        ).state_dict()
        for workers in (0, 2)
    ]
    for key in results[0]:
        assert torch.equal(results[0][key], results[1][key])


def test_what_goes_wrong_in_a_worker_is_said(tmp_path: Path) -> None:
    class Broken(Numbers):
        def load(self, drawn: Tensors) -> Tensors:
            raise ValueError("this shard is damaged")

    with pytest.raises(ValueError, match="this shard is damaged"):
        optimise(Regression(), Broken(), config(tmp_path, workers=2), "test")


def test_by_the_clock_it_ends_and_goes_on_with_what_is_left(tmp_path: Path) -> None:
    settings = {"steps": 10**6, "seconds": 3.0, "validate_every": 10**6, "log_every": 20}
    with pytest.raises(Stopped):
        optimise(Regression(), Numbers(), config(tmp_path, **settings, stop_after_seconds=2.0), "test")
    before, validated = len(read_metrics(tmp_path)), []

    def validate(module: Regression, step: int) -> dict[str, float]:
        validated.append(step)
        return {}

    optimise(Regression(), Numbers(), config(tmp_path, **settings), "test", validate=validate)
    steps = [line["step"] for line in read_metrics(tmp_path)]
    rates = [line["learning_rate"] for line in read_metrics(tmp_path) if "learning_rate" in line]
    assert validated == [steps[-1]], "at the end, whenever that is"
    assert rates[before] < 0.3 * max(rates), "two of the three seconds were over"
    assert rates[-1] < 0.01 * max(rates)


def test_accumulated_parts_are_the_whole_batch(tmp_path: Path) -> None:
    def without_dropout() -> Regression:
        module = Regression()
        module.layers[1].p = 0.0
        return module

    whole = optimise(without_dropout(), Numbers(), config(tmp_path / "a"), "test")
    parts = optimise(without_dropout(), Numbers(), config(tmp_path / "b", gradient_accumulation_steps=4), "test")
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    losses = [[line["loss"] for line in read_metrics(tmp_path / name)] for name in "ab"]
    torch.testing.assert_close(*map(torch.tensor, losses), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "said"), [("DEEPSPEED", "DeepSpeed is not supported; shard with FSDP"), ("FSDP", "FSDP's first version")]
)
def test_other_ways_to_shard_are_refused(kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    monkeypatch.setattr(Accelerator, "is_fsdp2", False)
    with pytest.raises(UserError, match=said):
        new_accelerator(config(tmp_path))


def test_a_batch_that_cannot_be_shared_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make it a multiple of 3"):
        optimise(Regression(), Numbers(), config(tmp_path, gradient_accumulation_steps=3), "test")


def test_the_average_is_what_comes_out(tmp_path: Path) -> None:
    averaged = optimise(Regression(), Numbers(), config(tmp_path / "a"), "test")
    last = optimise(Regression(), Numbers(), config(tmp_path / "b", ema_decay=0.0), "test")
    difference = max((a - b).abs().max() for a, b in zip(averaged.parameters(), last.parameters(), strict=True))
    assert 0 < difference < 0.2


class TestGoingOn:
    RUN = """
    import os, sys, torch
    from pathlib import Path
    from altdiffusion_clip.training.loop import optimise
    from tests.training.test_loop import Numbers, Regression, config
    stop_at = int(sys.argv[2])

    class Killed(Numbers):
        def load(self, drawn):
            if self.loads + 1 == stop_at:
                os.kill(os.getpid(), 9)
            return super().load(drawn)

    trained = optimise(Regression(), Killed(), config(Path(sys.argv[1]), checkpoint_seconds=0.0), "test")
    torch.save(trained.state_dict(), sys.argv[1] + ".done")
    """

    @pytest.mark.full
    def test_a_killed_run_goes_on_to_the_same_weights(self, tmp_path: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

        def run(name: str, stop_at: int) -> int:
            command = [sys.executable, "-c", textwrap.dedent(self.RUN), str(tmp_path / name), str(stop_at)]
            return subprocess.run(command, capture_output=True, env=environment, timeout=120).returncode

        assert run("whole", -1) == 0
        for stop_at in (7, 20):
            assert run("killed", stop_at) == -9
        assert run("killed", -1) == 0
        whole, killed = (torch.load(tmp_path / f"{name}.done", weights_only=True) for name in ("whole", "killed"))
        for key, tensor in whole.items():
            assert torch.equal(tensor, killed[key]), key
        lines = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
        assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]

    def test_a_run_in_pieces_of_time(self, tmp_path: Path) -> None:
        whole = optimise(Regression(), Numbers(), config(tmp_path / "whole"), "test")
        module, pieces = Regression(), 0
        while True:
            try:
                module = Regression()
                optimise(module, Numbers(), config(tmp_path / "pieces", stop_after_seconds=1e-9), "test")
                break
            except Stopped as stopped:
                pieces += 1
                assert "run the same command again" in str(stopped)
        assert pieces == 59
        for a, b in zip(whole.parameters(), module.parameters(), strict=True):
            assert torch.equal(a, b)

    def test_the_time_counts_from_the_runs_beginning(self, tmp_path: Path) -> None:
        settings = config(tmp_path, stop_after_seconds=1000.0)
        accelerator = new_accelerator(settings)
        accelerator.begun -= 2000  # spent on preparing, or in an earlier phase
        with pytest.raises(Stopped, match="after step 1 of"):
            optimise(Regression(), Numbers(), settings, "test", accelerator=accelerator)

    def test_slow_checkpoints_are_rare(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        saves = []

        def slow(*arguments: object) -> None:
            time.sleep(0.05)
            saves.append(1)

        monkeypatch.setattr("altdiffusion_clip.training.loop.save_state", slow)
        begun = time.monotonic()
        optimise(Regression(), Numbers(), config(tmp_path, steps=300, checkpoint_seconds=1e-6), "test")
        # Of 300; the first has no cost to go by yet, and one stands at the end.
        assert len(saves) <= 3 + (time.monotonic() - begun)

    def test_a_finished_run_is_not_run_again(self, tmp_path: Path) -> None:
        first = optimise(Regression(), Numbers(), config(tmp_path), "test").state_dict()
        source = Numbers()
        again = optimise(Regression(), source, config(tmp_path), "test").state_dict()
        assert source.loads == 0
        assert all(torch.equal(first[key], again[key]) for key in first)

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
    def test_an_unusable_checkpoint_is_named(self, content: bytes | None, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint.pt"
        if content is None:
            torch.save({"module": nn.Linear(2, 2).state_dict()}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is not a checkpoint of this stage"):
            optimise(Regression(), Numbers(), config(tmp_path), "test")


def test_frozen_parameters_stay_and_are_not_saved(tmp_path: Path) -> None:
    module = Regression()
    module.layers[0].requires_grad_(False)
    before = module.layers[0].weight.clone()
    optimise(module, Numbers(), config(tmp_path), "test")
    assert torch.equal(module.layers[0].weight, before)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(saved["module"]) == {"layers.3.weight", "layers.3.bias"}


def test_a_module_without_anything_to_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing of this module requires gradients"):
        optimise(Regression().requires_grad_(False), Numbers(), config(tmp_path), "test")


class TestNotFinite:
    def test_a_bad_batch_is_skipped_and_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        module = optimise(Regression(), Numbers(bad=frozenset({3, 30})), config(tmp_path), "test")
        assert caplog.text.count("not finite, step skipped") == 2
        assert "2 of 60 steps were skipped" in caplog.text
        assert all(torch.isfinite(p).all() for p in module.parameters())
        assert read_metrics(tmp_path)[2]["loss"] is None, "JSON knows no NaN"

    def test_a_loss_that_stays_so_ends_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(FloatingPointError, match="lower learning rate"):
            optimise(Regression(), Numbers(bad=range(1000)), config(tmp_path), "test")


class TestSpikes:
    class Spikes(Numbers):
        def load(self, drawn: Tensors) -> Tensors:
            self.loads += 1
            return {"x": drawn["x"] * (1000 if self.loads in self.bad else 1)}

    def test_a_spike_is_skipped_and_the_run_goes_on(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        learnt = [
            optimise(Regression(), self.Spikes(bad=bad), config(tmp_path / str(spike), max_spike=spike), "test")
            for spike, bad in ((20.0, frozenset({60})), (20.5, frozenset()))
        ]
        assert caplog.text.count("is usual, step skipped") == 1
        assert "step 60: the gradient's norm is" in caplog.text
        assert "1 of 60 steps were skipped" in caplog.text
        for name, parameter in learnt[0].named_parameters():
            assert not torch.equal(parameter, learnt[1].get_parameter(name)), "the last step was not taken"

    def test_a_run_that_goes_on_knows_what_is_usual(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        settings = config(tmp_path, max_spike=20.0, checkpoint_seconds=0.0)
        with pytest.raises(Stopped):
            optimise(Regression(), Numbers(), dataclasses.replace(settings, stop_after_seconds=1e-9), "test")
        optimise(Regression(), self.Spikes(bad=frozenset({1})), settings, "test")
        assert caplog.text.count("is usual, step skipped") == 1

    def test_spikes_without_an_end_are_one_line_that_names_the_checkpoint(self, tmp_path: Path) -> None:
        settings = config(tmp_path, max_spike=20.0, checkpoint_seconds=0.0)
        with pytest.raises(UserError, match=r"20 steps in a row were skipped, .*checkpoint\.pt holds the state before"):
            optimise(Regression(), self.Spikes(bad=range(10, 1000)), settings, "test")
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 9


class TestTrackers:
    def test_figures_go_to_a_tracker_of_accelerates(self, tmp_path: Path) -> None:
        run = config(tmp_path / "run", trackers=["tensorboard"])
        accelerator = new_accelerator(run)
        optimise(Regression(), Numbers(), run, "test", accelerator=accelerator)
        assert list((tmp_path / "run" / "run").rglob("events.*")), "beside the run's own, in a folder of its name"
        accelerator.end_training()

    def test_one_that_is_not_there_is_one_line(self, tmp_path: Path) -> None:
        for name in ("wandb", "nothing"):
            with pytest.raises(UserError, match=name):
                new_accelerator(config(tmp_path, trackers=[name]))


class TestFullDisk:
    """On a file system of one megabyte, where nothing but root may mount one."""

    @pytest.fixture
    def small_disk(self, tmp_path: Path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            pytest.skip("file systems cannot be mounted here")
        yield disk
        subprocess.run(["umount", "--lazy", disk], check=True)

    def test_the_run_goes_on_and_the_checkpoint_before_stays(
        self, small_disk: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(Stopped):
            optimise(Regression(), Numbers(), config(small_disk, stop_after_seconds=1e-9), "test")
        checkpoint = small_disk / "checkpoint.pt"
        before = checkpoint.read_bytes()
        filler = small_disk / "filler"

        class Filling(Numbers):
            def load(self, drawn: Tensors) -> Tensors:
                if self.loads == 10:
                    filler.write_bytes(b"x" * max(0, os.statvfs(small_disk).f_bavail * 4096 - 4096))
                if self.loads == 20:
                    assert checkpoint.read_bytes() == before or torch.load(checkpoint, weights_only=True)
                    filler.unlink()
                return super().load(drawn)

        trained = optimise(Regression(), Filling(), config(small_disk, checkpoint_seconds=0.0), "test")
        assert "the one before is kept" in caplog.text
        whole = optimise(Regression(), Numbers(), config(small_disk.parent / "whole"), "test")
        for a, b in zip(trained.parameters(), whole.parameters(), strict=True):
            assert torch.equal(a, b)
        assert not [path for path in small_disk.iterdir() if path.name.startswith(".")]


def test_validation_measures_the_average_on_schedule(tmp_path: Path) -> None:
    seen: list[tuple[int, Tensor]] = []

    def validate(module: Regression, step: int) -> dict[str, float]:
        assert not module.training
        seen.append((step, module.layers[0].weight.detach().clone()))
        return {"measure": float(step)}

    trained = optimise(Regression(), Numbers(), config(tmp_path, validate_every=20), "test", validate=validate)
    assert [step for step, _ in seen] == [20, 40, 60]
    assert torch.equal(seen[-1][1], trained.layers[0].weight), "the average is what is measured"
    assert [line["step"] for line in read_metrics(tmp_path) if "measure" in line] == [20, 40, 60]
    plain = optimise(Regression(), Numbers(), config(tmp_path / "plain"), "test")
    assert torch.equal(plain.layers[0].weight, trained.layers[0].weight), "and it changes nothing"


def test_bfloat16_learns_too(tmp_path: Path) -> None:
    module, some = Regression(), Numbers().draw(step_generator(9, 0))
    before = module(**some).item()
    settings = config(tmp_path, steps=200, ema_decay=0.0, mixed_precision="bf16")
    optimise(module, Numbers(), settings, "test")
    assert module.layers[0].weight.dtype == torch.float32
    assert module(**some).item() < 0.4 * before
    # And full precision after it, in the same process.
    optimise(Regression(), Numbers(), dataclasses.replace(config(tmp_path / "b"), steps=2), "test")
