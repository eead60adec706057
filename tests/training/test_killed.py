"""A process that is killed at any moment, and the same command again: the weights are those of an undisturbed run."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import FULL, in_full
from tests.processes import forkserver
from tests.training.run_stage import run_stage
from tests.training.worlds import PIPELINE, write_parallel, write_pictures, write_student, write_teacher

KILLS = 20 if FULL else 2


def _run(stage: str, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    run_stage(stage, settings)


def _settings(stage: str, folder: Path) -> dict[str, Any]:
    common = {"batch_size": 8, "warmup_steps": 3, "learning_rate": 1e-3, "checkpoint_seconds": 0.0, "cpu": True}
    if stage == "align":
        data = write_pictures(folder / "pictures")
        model = {"model": str(PIPELINE), "resolution": 32, "keys_and_values_steps": 5, "ema_decay": 0.9}
        return {**common, **model, "data": [str(data)], "steps": 15}
    models = {"teacher": str(write_teacher(folder / "teacher")), "student": str(write_student(folder / "student"))}
    data = write_parallel(folder / "a.jsonl") if stage == "distill" else write_pictures(folder / "pictures")
    return {**common, **models, "data": [str(data)], "steps": 40}


@pytest.mark.parametrize("stage", ["align", *in_full("distill", "contrastive")])
def test_killed_at_random_moments(stage: str, tmp_path: Path) -> None:
    settings = _settings(stage, tmp_path)
    generator = random.Random(0)

    def start(name: str) -> Any:
        process = forkserver().Process(target=_run, args=(stage, {**settings, "output": str(tmp_path / name)}))
        process.start()
        return process

    undisturbed = start("whole")
    began = time.monotonic()
    undisturbed.join()
    assert undisturbed.exitcode == 0
    took = time.monotonic() - began

    killed, unfinished = 0, tmp_path / "killed"
    while killed < KILLS:
        process = start("killed")
        process.join(generator.uniform(0.0, 0.35 * took))
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        else:
            # It came to its end before it was to be killed: begin anew, and count on.
            assert process.exitcode == 0
            unfinished.rename(tmp_path / f"finished-{killed}")
        for checkpoint in unfinished.rglob("checkpoint.pt"):
            assert torch.load(checkpoint, weights_only=True)["module"], "a checkpoint is whole or not there"
        for model in unfinished.glob("model"):
            assert any(model.rglob("*.safetensors"))
    last = start("killed")
    last.join()
    assert last.exitcode == 0

    finished = [path for path in tmp_path.iterdir() if path.name.startswith("finished")]
    for run in (unfinished, *finished):
        for expected in (tmp_path / "whole" / "model").rglob("*.safetensors"):
            whole = load_file(expected)
            other = load_file(run / "model" / expected.relative_to(tmp_path / "whole" / "model"))
            for name, tensor in whole.items():
                assert torch.equal(tensor, other[name]), f"{run.name}: {name}"
