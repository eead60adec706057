"""Several processes with gloo, as torchrun starts them, compute what one does.

(`accelerate launch --cpu` starts one process, whatever `--num_processes` says.)
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from altdiffusion_clip.training.metrics import read_metrics
from tests.conftest import FULL, PUBLISHED
from tests.training.run_stage import run_as_one_of, run_stage
from tests.training.worlds import PIPELINE, write_parallel, write_pictures, write_student, write_teacher

STEPS = 12 if FULL else 1
RUNS = ("distill", "contrastive", "contrastive-in-parts", "align")
RUNS += ("align-with-cache", "lora", "lora-on-m18s-text", "dreambooth", "add-language")


def launch(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of both stages by one process and by two.

    `make test` forks the two from a process in which everything is imported, instead of starting torchrun.
    """
    folder = tmp_path_factory.mktemp("runs")
    common = {
        "teacher": str(write_teacher(folder / "teacher")),
        "student": str(write_student(folder / "student")),
        "steps": STEPS,
        "batch_size": 16,
        "learning_rate": 5e-4,
        "warmup_steps": 3,
        "log_every": 1,
        "cpu": True,
        "ema_decay": 0.5,
    }
    data = {
        "distill": [str(write_parallel(folder / "parallel.jsonl"))],
        "contrastive": [str(write_pictures(folder / "pictures"))],
    }

    write_parallel(folder / "german.jsonl", ("en", "de"))

    def jobs(processes: str) -> list[tuple[str, dict[str, Any]]]:
        jobs = [
            (stage, {**common, "data": data[stage], "output": str(folder / processes / stage)})
            for stage in ("distill", "contrastive")
        ]
        # Two parts in each of two processes are four parts of the same batch.
        split = {"gradient_accumulation_steps": 2, "output": str(folder / processes / "contrastive-in-parts")}
        align = {**common, "data": data["contrastive"], "model": str(PIPELINE), "resolution": 16}
        align |= {"cache_text_states": True, "output": str(folder / processes / "align")}
        del align["teacher"], align["student"]
        jobs.append(("align", align))
        if not FULL:
            return jobs
        jobs.append(("contrastive", {**jobs[1][1], **split}))
        with_cache = {
            "cache": str(folder / processes / "cache"),
            "output": str(folder / processes / "align-with-cache"),
        }
        jobs.append(("align", {**align, **with_cache}))
        tuned = {**align, "cache_text_states": False, "rank": 2}
        on_text = {"model": str(PUBLISHED / "alt-diffusion-m18-tiny"), "train_text_encoder": True}
        dreambooth = {**tuned, "instance_images": data["contrastive"][0], "instance_prompt": "一只sks猫"}
        dreambooth |= {"class_prompt": "一只猫", "class_images": 3}
        del dreambooth["data"], dreambooth["cache_text_states"]
        language = {**common, "model": "emoji-m18", "data": [str(folder / "german.jsonl")], "learning_rate": 1e-4}
        del language["teacher"], language["student"]
        return [
            *jobs,
            ("lora", {**tuned, "output": str(folder / processes / "lora")}),
            ("lora", {**tuned, **on_text, "output": str(folder / processes / "lora-on-m18s-text")}),
            ("dreambooth", {**dreambooth, "output": str(folder / processes / "dreambooth")}),
            ("add-language", {**language, "output": str(folder / processes / "add-language")}),
        ]

    for stage, settings in jobs("one"):
        run_stage(stage, settings)
    for who in ("two", *(["sharded"] if FULL else [])):
        todo = jobs(who)
        if who == "sharded":  # each stops itself once
            todo = [each for job in todo for each in ((job[0], {**job[1], "stop_after_seconds": 1e-9}), job)]
        (folder / f"{who}.json").write_text(json.dumps(todo))
        if not FULL:
            multiprocessing.start_processes(
                run_as_one_of, (2, free_port(), folder / f"{who}.json"), 2, start_method="forkserver"
            )
            continue
        command = [*launch(2), "-m", "tests.training.run_stage", str(folder / f"{who}.json"), "2", who]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=400)
        assert finished.returncode == 0, finished.stderr[-3000:]
    return folder


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("many", ["two", "sharded"])
@pytest.mark.full
class TestTwoProcesses:
    """As they are, and with the weights sharded over them (FSDP) and stopped on the way."""

    def test_the_loss_curve_is_the_same(self, run: str, many: str, runs: Path) -> None:
        one, two = ([line["loss"] for line in read_metrics(runs / who / run)] for who in ("one", many))
        assert len(one) == len(two) == STEPS
        assert one == pytest.approx(two, abs=1e-5)

    def test_the_weights_are_the_same(self, run: str, many: str, runs: Path) -> None:
        made = sorted((runs / "one" / run / "model").rglob("*.safetensors"))
        assert made
        for file in made:
            other = runs / many / run / "model" / file.relative_to(runs / "one" / run / "model")
            one, two = load_file(file), load_file(other)
            assert one.keys() == two.keys()
            for name in one:
                torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=0, msg=name)

    def test_a_checkpoint_of_two_is_one_of_one(self, run: str, many: str, runs: Path) -> None:
        one, two = (
            torch.load(runs / who / run / "checkpoint.pt", weights_only=True, map_location="cpu")
            for who in ("one", many)
        )
        assert one["module"].keys() == two["module"].keys()
        assert {n: t.shape for n, t in one["average"].items()} == {n: t.shape for n, t in two["average"].items()}
        assert two["step"] == STEPS


def test_what_is_computed_once_is_shared_out(runs: Path) -> None:
    for file in ("distill/data/parallel/teacher.bin", "contrastive/data/pictures/features.bin"):
        one, two = ((runs / who / file).read_bytes() for who in ("one", "two"))
        ours, theirs = (torch.frombuffer(bytearray(content), dtype=torch.float16) for content in (one, two))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    for who in ("one", "two"):
        assert len(list((runs / who / "align/data/pictures/states/parts").iterdir())) > 1


@pytest.mark.full
def test_four_processes_compute_what_one_does(runs: Path, tmp_path: Path) -> None:
    settings = json.loads((runs / "two.json").read_text())[0][1]
    (tmp_path / "jobs.json").write_text(json.dumps([("distill", {**settings, "output": str(tmp_path / "four")})]))
    command = [*launch(4), "-m", "tests.training.run_stage", str(tmp_path / "jobs.json"), "4"]
    subprocess.run(command, check=True, env=environment(), timeout=400)
    one, four = ([line["loss"] for line in read_metrics(run)] for run in (runs / "one" / "distill", tmp_path / "four"))
    assert one == pytest.approx(four, abs=1e-5)


def train_on_machines(
    disks: Sequence[Path], settings: dict[str, Any], processes: int, *modes: str, code: int = 0
) -> list[str]:
    """Starts a run on machines, each with a disk of those, and returns what they print."""
    port, running = free_port(), []
    for node, disk in enumerate(disks):
        disk.mkdir(exist_ok=True)
        job = ("align", {**settings, "output": str(disk / "run")})
        (disk / "jobs.json").write_text(json.dumps([job]))
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(disks)), "--node_rank", str(node)]
        command += ["--nproc_per_node", str(processes), "--master_addr", "127.0.0.1", "--master_port", str(port)]
        command += ["-m", "tests.training.run_stage", str(disk / "jobs.json"), str(len(disks) * processes), *modes]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()))
    said = [each.communicate(timeout=400)[1] for each in running]
    assert {each.returncode for each in running} == {code}, "\n".join(said)[-3000:]
    return said


@pytest.mark.full
def test_machines_of_which_only_some_share_a_disk_are_refused(runs: Path, tmp_path: Path) -> None:
    settings = next(each for stage, each in json.loads((runs / "two.json").read_text()) if stage == "align")
    disks = tmp_path / "shared", tmp_path / "shared", tmp_path / "own"
    for said in train_on_machines(disks, settings, 1, code=1):
        assert re.search(r"UserError: only some machines share .*; give a folder that all share", said), said[-2000:]
    assert not list(tmp_path.rglob("checkpoint.pt"))
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.full
@pytest.mark.parametrize("processes", [1, 2])
def test_machines_without_a_shared_disk(processes: int, runs: Path, tmp_path: Path) -> None:
    settings = next(each for stage, each in json.loads((runs / "two.json").read_text()) if stage == "align")
    disks = tmp_path / "first", tmp_path / "second"
    train_on_machines(disks, {**settings, "stop_after_seconds": 1e-9}, processes)
    assert [(disk / "run" / "checkpoint.pt").exists() for disk in disks] == [True, False]
    shutil.rmtree(disks[1])  # another machine takes its place
    train_on_machines(disks, settings, processes, "slow-copies")
    assert sorted(path.name for path in disks[0].iterdir()) == ["jobs.json", "run"]
    assert not list(disks[0].rglob(".*"))
    for disk in disks:
        made = load_file(disk / "run" / "model" / "unet" / "diffusion_pytorch_model.safetensors")
        alone = load_file(runs / "one" / "align" / "model" / "unet" / "diffusion_pytorch_model.safetensors")
        for name, tensor in alone.items():
            torch.testing.assert_close(made[name], tensor, atol=1e-5, rtol=0, msg=name)
        assert (disk / "run" / "data" / "pictures" / "latents.bin").is_file()
    train_on_machines(disks, settings, processes)  # is finished


@pytest.mark.parametrize(
    ("processes", "kills", "steps"),
    [
        pytest.param(2, 2, 1500, marks=pytest.mark.full),
        pytest.param(4, 2, 1500, marks=pytest.mark.full),
        pytest.param(2, 20, 6000, marks=pytest.mark.slow),
        pytest.param(4, 20, 6000, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments_the_others_end_in_one_line_each_and_the_run_goes_on(
    processes: int, kills: int, steps: int, tmp_path: Path
) -> None:
    models = [write_teacher(tmp_path / "teacher"), write_student(tmp_path / "student")]
    data = write_parallel(tmp_path / "parallel.jsonl")

    def start(name: str, **more: Any) -> subprocess.Popen[str]:
        command = [*launch(processes), "-m", "altdiffusion_clip.cli", "train", "distill", "--teacher", models[0]]
        command += ["--student", models[1], "--data", data, "--steps", steps, "--batch-size", "8", "--cpu"]
        command += ["--checkpoint-seconds", "0.1", "--output", tmp_path / name]
        return subprocess.Popen(list(map(str, command)), env=environment(), text=True, **more)

    assert start("whole").wait(timeout=800) == 0
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    generator = random.Random(0)
    for _ in range(kills):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        killed = start("killed", stderr=subprocess.PIPE)
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert killed.poll() is None
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        os.kill(int(generator.choice(children_of(killed.pid))), signal.SIGKILL)
        began = time.monotonic()
        _, said = killed.communicate(timeout=100)
        assert killed.returncode != 0
        assert time.monotonic() - began < 60
        lines = [
            line for line in said.replace("\r", "\n").splitlines() if line.startswith("altdiffusion: another process")
        ]
        # torchrun may stop the others before they notice by themselves. It may also kill those that it has stopped.
        assert 1 <= len(lines) + said.count("altdiffusion: stopped") <= processes - 1, "a line for each of the others"
        assert said.count("altdiffusion: ") == len(lines) + said.count("altdiffusion: stopped") + 1
        assert said.count("languages:") == 1, "one process speaks for all"
        assert not (tmp_path / "killed" / "model").exists()
    assert start("killed").wait(timeout=800) == 0
    whole, again = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
