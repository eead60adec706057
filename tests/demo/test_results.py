"""What is kept of a drawing."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from altdiffusion_clip.demo.results import best_first, restored, rows_of, write_archive, write_pictures
from altdiffusion_clip.demo.studio import Drawn
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.png_text import SETTINGS_KEY
from altdiffusion_clip.drawing.settings import Settings
from tests.pictures import held_out_pictures


def drawn(seed: int, cosine: float | None) -> Drawn:
    return Drawn(Image.new("RGB", (4, 4)), Settings("猫", seed, (seed,), "emoji-m18"), cosine)


def test_the_best_first_and_all_in_a_zip(tmp_path: Path) -> None:
    best = best_first([drawn(5, 0.1), drawn(6, 0.3), drawn(7, 0.2)], 2)
    assert [each.settings.seed for each in best] == [6, 7]
    paths = write_pictures(best, tmp_path)
    archive = write_archive(paths, rows_of(best, paths), tmp_path)
    with zipfile.ZipFile(archive) as file:
        rows = json.loads(file.read("results.json"))
        assert file.namelist() == ["01-seed6.png", "02-seed7.png", "results.json"]
    assert [(row["rank"], row["seed"], row["cosine"]) for row in rows] == [(1, 6, 0.3), (2, 7, 0.2)]
    assert rows[0]["settings"]["prompt"] == "猫"
    assert restored(paths[0], "emoji-m18") == best[0].settings


def test_without_scores_in_the_order_of_drawing() -> None:
    assert [each.settings.seed for each in best_first([drawn(2, None), drawn(1, None)], 5)] == [2, 1]


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"prompt": 5, "seed": 0, "batch_seeds": [0], "model": "m"}'])
def test_pictures_without_settings(text: str | None, tmp_path: Path) -> None:
    path = held_out_pictures()[0].path
    if text is not None:
        info = PngImagePlugin.PngInfo()
        info.add_itxt(SETTINGS_KEY, text)
        path = tmp_path / "odd.png"
        Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    with pytest.raises(Refusal, match="There are no settings"):
        restored(path, "emoji-m18")


def test_a_picture_of_a_webui_gives_its_settings(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a fox\nNegative prompt: blue\nSteps: 7, Sampler: Euler a, CFG scale: 4, Seed: 9")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    found = restored(tmp_path / "a.png", "emoji-m18")
    assert (found.prompt, found.negative_prompt, found.seed, found.scheduler) == ("a fox", "blue", 9, "euler-a")
    assert found.model == "emoji-m18"


def test_rows_have_what_other_tools_read() -> None:
    (row,) = rows_of([drawn(5, 0.1)], [Path("a.png")])
    assert row["parameters"].splitlines()[0] == "猫"
    assert "Seed: 5" in row["parameters"]


def test_a_text_of_settings_is_read_like_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "settings.txt"
    path.write_text("蓝色背景上的猫\nSteps: 9, CFG scale: 3, Seed: 4, Size: 96x64, Model: another", encoding="utf-8")
    found = restored(path, "emoji-m18")
    assert (found.prompt, found.num_inference_steps, found.seed, found.width) == ("蓝色背景上的猫", 9, 4, 96)
    assert found.model == "emoji-m18"


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"\nSteps: 9", b"a cat\nSteps: 9, Size: wide", b"a" * 200_000])
def test_a_text_without_settings(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "settings.txt"
    path.write_bytes(data)
    with pytest.raises(Refusal, match="There are no settings"):
        restored(path, "emoji-m18")
