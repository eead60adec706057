"""Whole runs: tables and grids, stopped anywhere and gone on with; each picture the same however it is drawn."""

import csv
import json
import random
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionPipeline, generate
from altdiffusion_clip.cli import main
from altdiffusion_clip.drawing.calls import Drawer
from altdiffusion_clip.drawing.folder import OutputFolder
from altdiffusion_clip.drawing.generation import batches_of, draw_into, local_engine, missing_of
from altdiffusion_clip.drawing.log import read_results
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.drawing.tasks import Plan, Task, tasks_of
from altdiffusion_clip.errors import UserError
from tests.conftest import FULL
from tests.processes import Command

QUICK = ["--steps", "1", "--batch-size", "4"]
PROMPTS = ["猫", "a dog on a red background", "ein Auto", "蓝色背景上的苹果", "قطة"]


@pytest.fixture(scope="module")
def pipeline() -> AltDiffusionPipeline:
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(*arguments: object) -> int:
    return main(["generate", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("_lock")
    }


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


class TestTheSamePicture:
    """It depends on its row alone."""

    def draw(self, pipeline: AltDiffusionPipeline, folder: Path, size: int, order: int = 1) -> dict[str, np.ndarray]:
        dtype = str(pipeline.unet.dtype).removeprefix("torch.")
        model = pipeline.config._name_or_path
        plan = Plan(Settings("", 0, (), model, num_inference_steps=2, guidance_scale=3.0, dtype=dtype), [0, 1])
        output = OutputFolder(folder)
        rows = [{"prompt": prompt, "id": str(number)} for number, prompt in enumerate(PROMPTS[:3])][::order]
        list(draw_into(output, batches_of(tasks_of(rows, plan), size), local_engine([Drawer(pipeline)])))
        return {row["name"]: pixels(folder / row["file"]) for row in read_results(folder)}

    def test_in_float32_to_the_last_pixel(self, pipeline: AltDiffusionPipeline, tmp_path: Path) -> None:
        expected = self.draw(pipeline, tmp_path / "1", 1)
        for name, size, order in (("3", 3, 1), ("4", 4, -1)):
            found = self.draw(pipeline, tmp_path / name, size, order)
            assert found.keys() == expected.keys()
            assert all((found[key] == expected[key]).all() for key in expected)

    def test_in_half_precision_nearly(self, quick_model: Path, tmp_path: Path) -> None:
        half = AltDiffusionPipeline.from_pretrained(quick_model, dtype=torch.bfloat16)
        half.set_progress_bar_config(disable=True)
        one, four = (self.draw(half, tmp_path / str(size), size) for size in (1, 4))
        for key, expected in one.items():
            error = np.mean((four[key] - expected) ** 2)
            assert 10 * np.log10(255**2 / max(error, 1e-9)) > 35, key
        row = next(row for row in read_results(tmp_path / "4") if row["name"] == "1-seed1")
        assert row["settings"]["batch_seeds"] == [0, 1, 0, 1]
        assert row["settings"]["batch_prompts"] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
        picture, again = tmp_path / "4" / row["file"], tmp_path / "again"
        assert run("--from-png", picture, "--judge", "none", "--output", again) == 0
        assert (pixels(again / "000-seed1.png") == pixels(picture)).all()

    def test_on_two_devices(self, quick_model: Path, tmp_path: Path) -> None:
        common = ["猫", "a dog", "--num-images", "3", "--steps", "1", "--model", quick_model]
        assert run(*common, "--output", tmp_path / "one") == 0
        assert run(*common, "--device", "cpu,cpu", "--output", tmp_path / "two") == 0
        assert contents(tmp_path / "one") == contents(tmp_path / "two")


class TestStops:
    @pytest.fixture(autouse=True)
    def use(self, quick_model: Path) -> None:
        self.model = str(quick_model)

    def command(self, folder: Path) -> list[str]:
        rows = [
            {"id": f"p{number}", "zh": zh, "en": en}
            for number, (zh, en) in enumerate([("猫", "a cat"), ("狗", "a dog")])
        ]
        table = write_csv(folder.parent / "table.csv", rows)
        grid = ["--languages", "zh,en", "--seeds", "0-4", "--vary", "guidance=2,4"]
        return ["generate", "--prompts-file", str(table), *grid, *QUICK, "--model", self.model, "--output", str(folder)]

    def test_killed_anywhere_it_ends_as_an_undisturbed_run(self, tmp_path: Path) -> None:
        assert main(self.command(tmp_path / "whole")) == 0
        assert len(read_results(tmp_path / "whole")) == 2 * 2 * 5 * 2
        generator = random.Random(3)
        command = self.command(tmp_path / "killed")
        drawn_before = 0
        for _ in range(20 if FULL else 3):
            process = Command(command, tmp_path)
            deadline = time.monotonic() + 60
            while len(list((tmp_path / "killed").glob("*.png"))) <= drawn_before and process.returncode is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(generator.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for path in (tmp_path / "killed").glob("p*.png"):
                pixels(path)  # none is half there
            drawn_before = len(list((tmp_path / "killed").glob("*.png")))
            if drawn_before >= 35:
                break
        assert main(command) == 0
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole")

    def test_what_is_there_is_not_drawn_again(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = self.command(tmp_path / "out")
        assert main(command) == 0
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("p*.png")}
        assert main(command) == 0
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("p*.png")} == before
        next(iter(before)).unlink()
        assert main(command) == 0
        changed = {path for path in before if path.stat().st_mtime_ns != before[path]}
        assert changed == {next(iter(before))}
        shown = capsys.readouterr().err
        assert shown.count("40/40 [") >= 3, "the bar counts what is there"
        assert "41/40" not in shown

    def test_two_runs_at_once(self, tmp_path: Path) -> None:
        first = Command(self.command(tmp_path / "out"), tmp_path / "first")
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # so that it is still there when the second one starts
        second = Command(self.command(tmp_path / "out"), tmp_path / "second")
        assert second.wait() == 2
        first.send_signal(signal.SIGCONT)
        assert "another run is drawing into" in second.stderr.read_text(encoding="utf-8").splitlines()[-1]
        assert first.wait() == 0
        assert len(read_results(tmp_path / "out")) == 40


def test_runs_that_share_a_folder(quick_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*PROMPTS, "--num-images", "2", "--steps", "1", "--model", quick_model, "--output"]
    assert run(*common, tmp_path / "whole") == 0
    shares = [
        Command(["generate", *common, tmp_path / "shared", "--shard", f"{k}/3"], tmp_path / str(k)) for k in (1, 2)
    ]
    assert [share.wait() for share in shares] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "shared").glob("results*")) == [
        "results-1-of-3.jsonl", "results-2-of-3.jsonl",
    ]  # fmt: skip
    assert len(read_results(tmp_path / "shared")) == 8
    assert not (tmp_path / "shared" / "index.html").exists()
    assert run(*common, tmp_path / "shared") == 0, "which draws the third share"
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")
    for wrong in ("0/2", "3/2", "x"):
        assert run("猫", "--shard", wrong, "--output", tmp_path / "other") == 2
        assert f"--shard {wrong}: give the number of this run" in capsys.readouterr().err


def test_a_run_of_all_keeps_a_share_away(tmp_path: Path) -> None:
    with (
        OutputFolder(tmp_path).locked(),
        pytest.raises(UserError, match="another run is drawing into"),
        OutputFolder(tmp_path, shard=(1, 2)).locked(),
    ):
        pass


def test_a_share_keeps_a_run_of_all_away(tmp_path: Path) -> None:
    with (
        OutputFolder(tmp_path, shard=(1, 2)).locked(),
        OutputFolder(tmp_path, shard=(2, 2)).locked(),
        pytest.raises(UserError, match="another run is drawing into"),
        OutputFolder(tmp_path).locked(),
    ):
        pass


def test_texts_that_were_cut_within_an_emoji(quick_model: Path, tmp_path: Path) -> None:
    rows = [{"id": "\ud800", "prompt": "a cat"}, {"prompt": "a \ud83d cat", "mood": "\udfff", "language": "\ud800"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"model": quick_model, "seeds": [0], "num_inference_steps": 1}
    of_a_file = list(generate(tmp_path / "t.jsonl", output=tmp_path / "a", **settings))
    of_python = list(generate(rows, output=tmp_path / "b", **settings))
    assert [row["prompt"] for row in of_a_file] == ["a cat", "a \N{REPLACEMENT CHARACTER} cat"]
    assert of_a_file == of_python
    assert all((tmp_path / "a" / row["file"]).is_file() for row in of_a_file)


def test_a_table_with_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "good", "prompt": "a cat", "mood": "calm"},
        {"id": "empty", "prompt": ""},
        {"id": "odd", "prompt": "a cat", "width": "65"},
        {"id": "unscheduled", "prompt": "a cat", "scheduler": "magic"},
        {"id": "seedless", "prompt": "a cat", "seed": "x"},
        {"id": "maskless", "prompt": "a cat", "mask": "gone.png"},
        {"id": "unstyled", "prompt": "a cat", "lora": "gone.safetensors"},
        {"id": "wide", "prompt": "a dog", "width": "96", "seed": "5", "steps": "3", "guidance": "2"},
    ]
    table = write_csv(tmp_path / "t.csv", rows)
    common = ["--prompts-file", table, "--steps", 2, "--num-images", 1, "--output", tmp_path / "out"]
    assert run(*common) == 1
    captured = capsys.readouterr()
    assert captured.err.count("failed ") == 6
    found = {row["id"]: row for row in read_results(tmp_path / "out")}
    assert found.keys() == {row["id"] for row in rows}
    assert {key for key, row in found.items() if row["error"]} == found.keys() - {"good", "wide"}
    assert all(row["file"] is None and row["rank"] is None for row in found.values() if row["error"])
    assert found["good"]["columns"] == {"mood": "calm"}
    assert found["good"]["rank"] == 1
    assert Image.open(tmp_path / "out" / found["wide"]["file"]).size == (96, 128)
    wide = found["wide"]["settings"]
    assert (wide["seed"], wide["num_inference_steps"], wide["guidance_scale"]) == (5, 3, 2.0)
    assert "no such file" in found["unstyled"]["error"] or "gone.safetensors" in found["unstyled"]["error"]
    # Once the table is right the rest is drawn.
    write_csv(table, [{**row, **({"prompt": "a tree"} if row["id"] == "empty" else {})} for row in rows])
    assert run(*common) == 1
    assert {row["id"] for row in read_results(tmp_path / "out") if not row["error"]} == {"good", "wide", "empty"}


def test_pictures_are_changed_and_painted_over(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "white.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 32))
    mask.save(tmp_path / "mask.png")
    rows = [
        {"id": "drawn", "prompt": "a red square"},
        {"id": "changed", "prompt": "a red square", "image": "white.png", "strength": "0.5"},
        {"id": "painted", "prompt": "a red square", "image": "white.png", "mask": "mask.png"},
    ]
    table = write_csv(tmp_path / "t.csv", rows)
    common = ["--prompts-file", table, "--steps", 4, "--seed", 3, "--num-images", 1, "--output", tmp_path / "out"]
    assert run(*common) == 0
    found = {row["id"]: tmp_path / "out" / row["file"] for row in read_results(tmp_path / "out")}
    below = {key: pixels(path)[40:].mean() for key, path in found.items()}
    assert below["painted"] > 240, "what the mask leaves stays white"
    assert below["changed"] > below["drawn"]
    assert (pixels(found["painted"])[:24] < 200).any()
    again = tmp_path / "again"
    assert run("--from-png", found["changed"], "--output", again) == 0
    assert (pixels(again / "000-seed3.png") == pixels(found["changed"])).all()


def test_a_lora_of_a_row_does_not_stay_for_the_next(tmp_path: Path, lora: Path) -> None:
    rows = [
        {"id": "before", "prompt": "a cat"},
        {"id": "styled", "prompt": "a cat", "lora": f"{lora}:1.0"},
        {"id": "weaker", "prompt": "a cat", "lora": f"{lora}:0.2"},
        {"id": "after", "prompt": "a cat"},
    ]
    table = write_csv(tmp_path / "t.csv", rows)
    assert run("--prompts-file", table, "--steps", 2, "--num-images", 1, "--output", tmp_path / "out") == 0
    found = {row["id"]: pixels(tmp_path / "out" / row["file"]) for row in read_results(tmp_path / "out")}
    assert (found["before"] == found["after"]).all()
    assert (found["before"] != found["styled"]).any()
    assert np.abs(found["weaker"] - found["before"]).mean() < np.abs(found["styled"] - found["before"]).mean()


@pytest.fixture
def lora(pipeline: AltDiffusionPipeline, tmp_path: Path) -> Path:
    """A random LoRA of the UNet's attention."""
    pytest.importorskip("peft")
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    other = AltDiffusionPipeline.from_pretrained("emoji-m18")
    other.unet.add_adapter(
        LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    )
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", get_peft_model_state_dict(other.unet))
    return tmp_path / "lora" / "pytorch_lora_weights.safetensors"


def test_a_dry_run_draws_nothing(quick_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["猫", "a dog", "--steps", 2, "--num-images", 3, "--model", quick_model, "--output", tmp_path / "out"]
    assert run(*common, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "6 pictures, 0 are there, 6 to draw" in said
    assert "of disk" in said
    assert not list((tmp_path / "out").glob("*.png"))
    assert run("猫", *common[2:]) == 0
    capsys.readouterr()
    assert run(*common, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["there"], found["missing"]) == (6, 3, 3)
    assert 0 < found["seconds"] < 600
    assert found["bytes"] > 3 * 500
    table = write_csv(tmp_path / "t.csv", [{"prompt": "a cat"}, {"prompt": ""}])
    assert run("--prompts-file", table, "--num-images", 1, "--output", tmp_path / "other", "--dry-run") == 1
    assert "cannot be drawn: row 2: the prompt is empty" in capsys.readouterr().out


def test_random_seeds_are_recorded_and_drawn_again(tmp_path: Path) -> None:
    assert run("猫", "--seed", -1, "--num-images", 2, "--steps", 2, "--output", tmp_path / "out") == 0
    rows = read_results(tmp_path / "out")
    assert len({row["seed"] for row in rows}) == 2
    assert rows[0]["file"] == f"000-seed{rows[0]['seed']}.png"
    again = tmp_path / "again"
    assert run("猫", "--seed", rows[0]["seed"], "--num-images", 1, "--steps", 2, "--output", again) == 0
    assert (pixels(again / rows[0]["file"]) == pixels(tmp_path / "out" / rows[0]["file"])).all()


def test_a_column_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "t.csv", [{"text": "a cat", "zh": "猫"}])
    for more, message in (([], "has the columns text, zh, and no prompt"), (["--languages", "zh,ar"], "and no ar")):
        assert run("--prompts-file", table, *more, "--output", tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty.csv").write_text("prompt\n")
    assert run("--prompts-file", tmp_path / "empty.csv", "--output", tmp_path / "out") == 2
    assert "has no row" in capsys.readouterr().err


class TestInPython:
    def test_rows_come_as_they_are_drawn(self, pipeline: AltDiffusionPipeline, tmp_path: Path) -> None:
        rows = generate(["猫", {"prompt": "a dog", "seed": 9, "owner": "me"}], pipeline, tmp_path, seeds=[1, 2],
                        num_inference_steps=2, judge="emoji-m18", name="emoji-m18")  # fmt: skip
        first = next(rows)
        assert (tmp_path / first["file"]).is_file()
        others = list(rows)
        last = {row["name"]: row for row in [first, *others]}
        assert list(last) == ["000-seed1", "000-seed2", "001-seed9"]
        assert sorted(last[name]["rank"] for name in list(last)[:2]) == [1, 2]
        assert last["001-seed9"]["columns"] == {"owner": "me"}
        assert list(generate(["猫"], pipeline, tmp_path, seeds=[1, 2], num_inference_steps=2, judge="emoji-m18",
                             name="emoji-m18")) == []  # fmt: skip

    def test_it_can_be_left(self, pipeline: AltDiffusionPipeline, tmp_path: Path) -> None:
        for _ in generate(PROMPTS, pipeline, tmp_path, num_inference_steps=1):
            break
        assert 1 <= len(read_results(tmp_path)) < 20
        assert (tmp_path / "index.html").is_file()
        assert len(list(generate(PROMPTS, pipeline, tmp_path, num_inference_steps=1))) >= 16
        assert len(read_results(tmp_path)) == 20

    def test_what_is_not_a_number_is_a_row_with_an_error(self, pipeline: AltDiffusionPipeline, tmp_path: Path) -> None:
        broken = AltDiffusionPipeline(
            **{**pipeline.components, "vae": BrokenVAE(pipeline.vae)}, requires_safety_checker=False
        )
        broken.set_progress_bar_config(disable=True)
        rows = list(generate(["a cat", "a dog"], broken, tmp_path, seeds=[0], num_inference_steps=1))
        assert [row["error"] for row in rows] == ["the picture is not a number; try --dtype float32"] * 2
        shutil.rmtree(tmp_path)

    def test_what_a_safety_checker_refuses_is_too(self, published: Path, tmp_path: Path) -> None:
        checked = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
        checked.safety_checker.concept_embeds_weights.data.fill_(-10)
        checked.safety_checker.special_care_embeds_weights.data.fill_(10)
        checked.set_progress_bar_config(disable=True)
        (row,) = generate(["a cat"], checked, tmp_path, seeds=[0], num_inference_steps=1, height=64, width=64)
        assert (row["file"], row["error"]) == (None, "the model's safety checker refused the picture")
        assert not list(tmp_path.glob("*.png"))

    def test_wrong_settings(self, pipeline: AltDiffusionPipeline, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="--vary colour"):
            list(generate(["a"], pipeline, tmp_path, vary={"colour": ["red"]}))
        with pytest.raises(TypeError, match="stepz"):
            list(generate(["a"], pipeline, tmp_path, stepz=3))


class BrokenVAE(torch.nn.Module):
    """A decoder that overflows, as some do in half precision."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae, self.config = vae, vae.config

    dtype, device = torch.float32, torch.device("cpu")

    def decode(self, latents: torch.Tensor, **options: object) -> tuple[torch.Tensor]:
        return (torch.full((len(latents), 3, 64, 64), torch.nan),)


def test_missing_batches_of_half_precision_are_drawn_whole(tmp_path: Path) -> None:
    plan = Plan(Settings("", 0, (), "m", dtype="float16"), [0, 1, 2])
    tasks = list(tasks_of([{"prompt": "a"}, {"prompt": "b"}], plan))
    output = OutputFolder(tmp_path)
    output.plan(tasks)
    output.add([(tasks[0], Image.new("RGB", (8, 8))), (tasks[4], Image.new("RGB", (8, 8)))])
    missing = list(missing_of(batches_of(tasks, 2), output))
    assert [[task.name for task in batch] for batch in missing] == [
        ["000-seed0", "000-seed1"], ["000-seed2", "001-seed0"], ["001-seed1", "001-seed2"],
    ]  # fmt: skip


def test_a_slow_device_does_not_keep_the_others() -> None:
    """Of two, the slow one is given its second batch only when the fast one has done many."""
    drawn: list[str] = []
    fast_has_done_three = threading.Event()

    class Device:
        def __init__(self, name: str) -> None:
            self.name = name

        def draw(self, settings: Settings) -> list[str]:
            if self.name == "slow":
                assert fast_has_done_three.wait(30)
            drawn.append(self.name)
            if drawn.count("fast") == 3:
                fast_has_done_three.set()
            return [self.name]

    batches = [[Task(str(n), str(n), Settings("a", n, (n,), "emoji-m18"))] for n in range(6)]
    devices: list[Any] = [Device("slow"), Device("fast")]
    done = list(local_engine(devices)(batches))
    assert sorted(int(batch[0].name) for batch, _ in done) == list(range(6))
    assert all(len(pictures) == 1 for _, pictures in done)
    assert drawn.count("fast") >= 3
