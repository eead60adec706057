import json
import random
import shutil
from pathlib import Path

import pytest

from altdiffusion_clip.cli import main
from tests.pictures import held_out_pictures


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 files: 4 cats, 191 other pictures, 5 that are broken in different ways."""
    folder = tmp_path_factory.mktemp("mixed")
    pictures = held_out_pictures()
    cats, others = pictures[:4], random.Random(0).sample(pictures[4:], 191)
    for number, picture in enumerate([*cats, *others]):
        shutil.copy(picture.path, folder / f"{number:03d}-{picture.concept.index}.png")
    whole = cats[0].path.read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "header.png").write_bytes(whole[:20])
    (folder / "page.webp").write_text("<html></html>")
    return folder


BROKEN = {"empty.png", "truncated.png", "text.jpg", "header.png", "page.webp"}


def test_cats_first_broken_files_listed_exit_code_1(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(mixed.iterdir())) == 200
    assert main(["rerank", "一只猫", str(mixed), "--judge", "emoji-m18"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 1 + 195
    assert {"rank", "cosine", "clip_score", "probability", "file"} == set(lines[0].split())
    assert all(line.split()[-1].endswith("-0.png") for line in lines[1:5])
    skipped = [line for line in captured.err.splitlines() if line.startswith("skipped")]
    assert {Path(line.split()[1].rstrip(":")).name for line in skipped} == BROKEN
    assert "Traceback" not in captured.err


def test_json_is_one_object_a_line_and_nothing_else(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "a dog", str(mixed), "--json", "--top", "3"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0].keys() == {"rank", "file", "cosine", "clip_score", "probability"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_files_of_results(suffix: str, mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / f"ranking.{suffix}"
    pictures = sorted(mixed.glob("00*.png"))
    sheet = tmp_path / "sheet.png"
    command = ["rerank", "猫", *map(str, pictures), "--output", str(output), "--contact-sheet", str(sheet)]
    assert main(command) == 0
    text = output.read_text(encoding="utf-8")
    if suffix == "json":
        assert len(json.loads(text)) == len(pictures)
    else:
        assert len(text.splitlines()) == len(pictures) + (suffix in ("csv", "tsv"))
    assert sheet.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "FOLDER"], "the prompt is empty"),
        (["cat", "FOLDER", "--top", "0"], "--top must be 1 or more"),
        (["cat", "FOLDER", "--batch-size", "0"], "--batch-size must be 1 or more"),
        (["cat", "FOLDER", "--output", "a.xlsx"], "must end in .csv"),
        (["cat", "EMPTY"], "no pictures in"),
        (["cat", "FOLDER", "--model", "EMPTY"], "has no model_index.json and no config.json"),
        (["cat", "FOLDER", "--device", "abacus"], "no device 'abacus'"),
    ],
    ids=str,
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"FOLDER": str(mixed), "EMPTY": str(tmp_path)}
    assert main(["rerank", *(places.get(a, a) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_missing_file_is_listed(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = sorted(mixed.glob("00*.png"))
    assert main(["rerank", "猫", str(pictures[0]), "nowhere.png"]) == 1
    assert "skipped nowhere.png: no such file" in capsys.readouterr().err
