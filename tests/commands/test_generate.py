import json
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.cli import main
from altdiffusion_clip.drawing.png_text import SETTINGS_KEY
from altdiffusion_clip.drawing.settings import Settings
from tests.processes import Command

FAST = ["--steps", "2", "--num-images", "2"]


def generate(*arguments: object) -> int:
    return main(["generate", *map(str, arguments)])


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_everything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("蓝色背景上的猫", "a dog", *FAST, "--seed", 5, "--output", tmp_path) == 0
    rows = rows_of(tmp_path)
    assert [row["file"] for row in rows] == ["000-seed5.png", "000-seed6.png", "001-seed5.png", "001-seed6.png"]
    for row in rows:
        assert {"prompt", "seed", "file", "score", "rank", "model", "error", "id", "language", "settings"} < row.keys()
        assert row["score"].keys() == {"cosine", "clip_score"}
        assert -1 <= row["score"]["cosine"] <= 1
        with Image.open(tmp_path / row["file"]) as image:
            assert image.size == (128, 128)
            assert json.loads(image.text[SETTINGS_KEY])["prompt"] == row["prompt"]
    for prompt in ("蓝色背景上的猫", "a dog"):
        group = [row for row in rows if row["prompt"] == prompt]
        assert {row["rank"] for row in group} == {1, 2}
        best = min(group, key=lambda row: row["rank"])
        assert best["score"]["cosine"] == max(row["score"]["cosine"] for row in group)
    assert Image.open(tmp_path / "contact-sheet.png").size[0] > 200
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "蓝色背景上的猫" in page
    assert page.count("<img") == 4
    out = capsys.readouterr().out
    assert "cosine" in out
    assert str(tmp_path / "000-seed5.png") in out


def test_same_seed_same_pixels(tmp_path: Path) -> None:
    for name in ("one", "other"):
        assert generate("猫", *FAST, "--output", tmp_path / name) == 0
    for file in ("000-seed0.png", "000-seed1.png", "results.jsonl", "contact-sheet.png", "index.html"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    assert (pixels(tmp_path / "one" / "000-seed0.png") != pixels(tmp_path / "one" / "000-seed1.png")).any()


def test_prompts_and_seeds_are_added(tmp_path: Path) -> None:
    common = ["--steps", 2, "--output", tmp_path]
    assert generate("猫", "--num-images", 1, *common) == 0
    first = (tmp_path / "000-seed0.png").stat().st_mtime_ns
    assert generate("猫", "a dog", "--num-images", 2, *common) == 0
    assert [row["file"] for row in rows_of(tmp_path)] == [
        "000-seed0.png", "000-seed1.png", "001-seed0.png", "001-seed1.png",
    ]  # fmt: skip
    assert (tmp_path / "000-seed0.png").stat().st_mtime_ns == first, "it was there"
    assert [row["rank"] for row in rows_of(tmp_path) if row["prompt"] == "猫"] in ([1, 2], [2, 1])
    assert generate("a tree", "--num-images", 1, *common) == 0
    assert rows_of(tmp_path)[-1]["file"] == "002-seed0.png"
    assert (tmp_path / "index.html").read_text("utf-8").count("<img") == 5


def test_other_settings_are_refused_and_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("猫", *FAST, "--output", tmp_path) == 0
    before = pixels(tmp_path / "000-seed0.png")
    capsys.readouterr()
    assert generate("猫", *FAST, "--guidance-scale", 5, "--output", tmp_path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has 000-seed0 with other settings: guidance_scale is 1.5, not 5.0; add --overwrite" in error
    assert (pixels(tmp_path / "000-seed0.png") == before).all()
    assert generate("猫", *FAST, "--guidance-scale", 5, "--overwrite", "--output", tmp_path) == 0
    assert (pixels(tmp_path / "000-seed0.png") != before).any()
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_picture_can_be_drawn_again_from_itself(batch_size: int, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    settings = ["--negative-prompt", "狗", "--guidance-scale", "3", "--batch-size", batch_size, "--height", 32]
    assert generate("قطة على خلفية زرقاء", *FAST, *settings, "--output", first) == 0
    assert generate("--from-png", first / "000-seed1.png", "--output", again) == 0
    assert [row["file"] for row in rows_of(again)] == ["000-seed1.png"]
    assert (pixels(first / "000-seed1.png") == pixels(again / "000-seed1.png")).all()


def test_fast_says_what_it_does_and_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert generate("猫", *FAST, "--fast", "--output", first) == 0
    assert "fast: " in capsys.readouterr().err
    assert rows_of(first)[0]["settings"]["fast"] in ("float32", "bfloat16")
    assert generate("--from-png", first / "000-seed0.png", "--output", again) == 0
    assert rows_of(again)[0]["settings"] == rows_of(first)[0]["settings"]
    assert (pixels(first / "000-seed0.png") == pixels(again / "000-seed0.png")).all()


def test_another_scheduler_and_it_is_drawn_again(tmp_path: Path) -> None:
    own, other, again = tmp_path / "own", tmp_path / "other", tmp_path / "again"
    assert generate("猫", *FAST, "--output", own) == 0
    assert generate("猫", *FAST, "--scheduler", "euler-a", "--output", other) == 0
    assert generate("--from-png", other / "000-seed0.png", "--output", again) == 0
    assert (pixels(own / "000-seed0.png") != pixels(other / "000-seed0.png")).any()
    assert (pixels(other / "000-seed0.png") == pixels(again / "000-seed0.png")).all()


def test_json_and_prompts_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\ufeff猫\n\n  a dog  \n", encoding="utf-8")
    assert (
        generate("--prompts-file", prompts, "--steps", 2, "--num-images", 1, "--json", "--output", tmp_path / "o") == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["猫", "a dog"]
    assert all(Path(row["file"]).is_file() for row in rows)


def test_any_diffusers_folder(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = published / "alt-diffusion-m9-tiny"
    size = ["--height", 64, "--width", 64]
    assert generate("猫", *FAST, *size, "--model", model, "--output", tmp_path / "a") == 0
    assert "brings no judge" in capsys.readouterr().err
    assert rows_of(tmp_path / "a")[0]["score"] is None
    # Its own head shares the text encoder; the other has one of its own.
    for name in ("alt-clip-m9-tiny", "alt-clip-m2-tiny"):
        judge = ["--judge", published / name, "--output", tmp_path / name]
        assert generate("猫", *FAST, *size, "--model", model, *judge) == 0
        drawn = tmp_path / name / rows_of(tmp_path / name)[0]["file"]
        expected = AltCLIPScorer.from_pretrained(published / name).score("猫", drawn).cosine.item()
        assert rows_of(tmp_path / name)[0]["score"]["cosine"] == pytest.approx(expected, abs=1e-5)


def test_a_prompt_that_is_cut_is_said_once(tmp_path: Path) -> None:
    prompt = " ".join(["猫"] * 100 + ["end"])
    command = Command(["generate", prompt, *FAST, "--output", tmp_path / "drawn"], tmp_path)
    assert command.wait() == 0
    errors = command.stderr.read_text(encoding="utf-8")
    assert errors.count("only 77 are used") == 1
    assert "end" in errors


def test_html_in_a_prompt_is_text(tmp_path: Path) -> None:
    assert generate("<script>alert('猫')</script>", *FAST, "--scorer", "none", "--output", tmp_path) == 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_empty_prompt_is_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate("猫", " ", *FAST, "--output", tmp_path) == 1
    assert "failed prompt 2 is empty" in capsys.readouterr().err
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_keeps_what_was_drawn(stop: signal.Signals, code: int, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    process = Command(["generate", "猫", "--steps", "5", "--num-images", "500", "--output", drawn], tmp_path)
    deadline = time.monotonic() + 120
    while len(list(drawn.glob("[0-9]*-seed*.png"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(stop)
    assert process.wait() == code, process.stderr.read_text(encoding="utf-8")
    assert "Traceback" not in process.stderr.read_text(encoding="utf-8")
    files = sorted(path.name for path in drawn.glob("[0-9]*-seed*.png"))
    rows = rows_of(drawn)
    assert len(files) >= 2
    assert {row["file"] for row in rows} == {row["file"] for row in rows} & set(files)
    assert len(rows) >= len(files) - 1
    for name in files:
        pixels(drawn / name)
    if stop == signal.SIGKILL:
        return  # no time to make the sheet or to tidy up
    pixels(drawn / "contact-sheet.png")
    assert not [path for path in drawn.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to draw"),
        (["  "], "prompt 1 is empty"),
        (["cat", "--num-images", "0"], "--num-images must be 1 or more"),
        (["cat", "--steps", "0"], "--steps must be 1 or more"),
        (["cat", "--seed", "-2"], "--seed must be 0 or more"),
        (["cat", "--seeds", "9-3"], "--seeds 9-3: give numbers and ranges, such as 0-99"),
        (["cat", "--seeds", "1", "--seed", "2"], "use only one of them"),
        (["cat", "--vary", "colour=red"], "--vary colour=red: give a column and its values"),
        (["cat", "--languages", "zh"], "names columns of a table"),
        (["cat", "--height", "63"], "--height must be a multiple of 16"),
        (["cat", "--model", "./nowhere"], "there is no file or folder ./nowhere"),
        (["cat", "--model", "TMP"], "has no model_index.json"),
        (["--prompts-file", "nowhere.txt"], "cannot read nowhere.txt"),
        (["--prompts-file", "LATIN"], "not UTF-8"),
        (["--from-png", "LATIN"], "cannot read"),
        (["--from-png", "PLAIN"], "holds no settings"),
        (["--from-png", "CHANGED"], "was made from another picture"),
        (["--from-png", "DAMAGED"], "are damaged (guidance_scale is '7.5')"),
        (["--from-png", "UNSCHEDULED"], "there is no scheduler 'magic'; choose one of ddim"),
        (["cat", "--from-png", "PLAIN"], "give no other"),
        (["cat", "--output", "LATIN"], "cannot write to"),
        (["cat", "--output", "ODD"], "choose another folder"),
    ],
    ids=str,
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes("gâteau".encode("latin-1"))
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    for name, more in (
        ("changed", {"strength": 0.5}),
        ("damaged", {"guidance_scale": "7.5"}),
        ("unscheduled", {"scheduler": "magic"}),
    ):
        info = PngInfo()
        info.add_itxt(SETTINGS_KEY, json.dumps({**asdict(Settings("猫", 0, (0,), "emoji-m18")), **more}))
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png", pnginfo=info)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "results.jsonl").write_text("[1]\n")
    places = {
        "TMP": tmp_path,
        "LATIN": tmp_path / "latin.txt",
        "PLAIN": tmp_path / "plain.png",
        "ODD": tmp_path / "odd",
        **{name.upper(): tmp_path / f"{name}.png" for name in ("changed", "damaged", "unscheduled")},
    }
    given = [str(places.get(argument, argument)) for argument in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "out")]
    assert generate(*given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_only_the_best_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--num-images", "4", "--steps", "3", "--json"]
    assert main(["generate", "蓝色背景上的猫", *quick, "--output", str(tmp_path / "all")]) == 0
    everything = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["generate", "蓝色背景上的猫", *quick, "--keep", "2", "--output", str(tmp_path / "kept")]) == 0
    kept = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["seed"], row["rank"], row["score"]) for row in kept] == [
        (row["seed"], row["rank"], row["score"]) for row in everything[:2]
    ]
    assert {path.name for path in (tmp_path / "kept").glob("*-seed*.png")} == {Path(row["file"]).name for row in kept}
    assert [row["file"] is None for row in rows_of(tmp_path / "kept")].count(True) == 2, "that were drawn and let go"


@pytest.mark.parametrize(
    ("more", "message"), [(["--keep", "0"], "--keep must be"), (["--keep", "1", "--scorer", "none"], "needs a judge")]
)
def test_keeping_needs_a_number_and_a_judge(more: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["generate", "猫", "--num-images", "2", "--output", str(tmp_path / "out"), *more]) == 2
    assert message in capsys.readouterr().err


def test_long_prompts_are_read_and_can_be_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "a cat on a blue background, " * 12
    quick = ["--num-images", "1", "--steps", "2", "--scorer", "none"]
    assert main(["generate", prompt, *quick, "--output", str(tmp_path / "cut")]) == 0
    assert "cut: '" in capsys.readouterr().err
    assert main(["generate", prompt, *quick, "--long-prompts", "--output", str(tmp_path / "long")]) == 0
    assert "cut" not in capsys.readouterr().err
    pictures = [np.asarray(Image.open(tmp_path / name / "000-seed0.png")) for name in ("cut", "long")]
    assert (pictures[0] != pictures[1]).any()
    again = [
        "--scorer",
        "none",
        "--from-png",
        str(tmp_path / "long" / "000-seed0.png"),
        "--output",
        str(tmp_path / "again"),
    ]
    assert main(["generate", *again]) == 0
    assert (np.asarray(Image.open(tmp_path / "again" / "000-seed0.png")) == pictures[1]).all()
