"""Contact sheets and pages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.drawing import gallery
from altdiffusion_clip.drawing.gallery import THUMBNAILS, write_contact_sheet, write_pages


def row(file: str, prompt: str = "a & b", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "file": file, "seed": 0, "rank": None, "score": None, "model": "<m>", **more}


def test_the_sheet_shows_every_picture_in_order(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (10 + 300 * i, 10 + 20 * i), colour).save(tmp_path / f"{i}.png")
    sheet = tmp_path / "sheet.png"
    write_contact_sheet(sheet, [(tmp_path / f"{i}.png", f"{i + 1}  cosine 0.{i}") for i in range(3)], columns=2)
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    found = [np.argwhere((pixels == colour).all(2)).mean(0) for colour in colours]
    assert found[0][1] < found[1][1], "the first two side by side"
    assert found[2][0] > found[0][0], "the third below"


def test_the_page_escapes_and_keeps_the_order(tmp_path: Path) -> None:
    for name in "012x":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    ranked = [row(f"{2 - i}.png", seed=i, rank=i + 1, score={"cosine": 0.2 - i / 10}) for i in range(3)]
    write_pages(tmp_path, [ranked, [row("x.png", "قطة", language="ar"), row("gone.png", "قطة"), row(None, "قطة")]])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a &amp; b" in page
    assert "&lt;m&gt;" in page
    assert page.index("2.png") < page.index("1.png") < page.index("0.png")
    assert "#1 · cosine 0.200" in page
    assert 'dir="auto">ar: قطة' in page
    assert "gone.png" not in page
    assert "<nav>" not in page


def test_small_pictures_are_pixelated_and_large_ones_have_thumbnails(tmp_path: Path) -> None:
    Image.new("RGB", (128, 64)).save(tmp_path / "small.png")
    Image.new("RGB", (512, 512)).save(tmp_path / "large.png")
    (tmp_path / THUMBNAILS).mkdir()
    Image.new("RGB", (192, 192)).save(tmp_path / THUMBNAILS / "large.webp")
    write_pages(tmp_path, [[row("small.png"), row("large.png")]])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '<img class="small" loading="lazy" src="small.png"' in page
    assert '<a href="large.png"><img loading="lazy" src="thumbnails/large.webp"' in page


def test_many_pictures_come_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "PAGE_PICTURES", 10)
    monkeypatch.setattr(gallery, "SHEET_ROWS", 4)
    groups = []
    for number in range(9):
        names = [f"{number}-{seed}.png" for seed in range(3)]
        for name in names:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        groups.append([row(name, f"prompt {number}") for name in names])
    write_pages(tmp_path, groups)
    pages = [(tmp_path / f"index{part}.html").read_text("utf-8") for part in ("", "-2", "-3")]
    assert [page.count("<img") for page in pages] == [9, 9, 9]
    assert 'href="index-2.html">next' in pages[0]
    assert 'href="index.html">previous' in pages[1]
    assert 'href="index-3.html">next' in pages[1]
    assert ">next" not in pages[2]
    sizes = [Image.open(tmp_path / f"contact-sheet{part}.png").size for part in ("", "-2", "-3")]
    assert sizes[0] == sizes[1]
    assert sizes[2][1] < sizes[0][1]
    assert sizes[0][0] == 3 * (gallery.THUMBNAIL + 8) + 8


def test_prompts_in_several_languages_have_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "TABLE_ROWS", 2)
    groups = []
    for name in ("cat", "dog", "<tree>"):
        for language in ("zh", "en"):
            files = [f"{name.strip('<>')}-{language}-{seed}.png" for seed in range(2)]
            for file in files:
                Image.new("RGB", (8, 8)).save(tmp_path / file)
            more = {"id": name, "language": language, "group": f"{name}-{language}"}
            pairs = enumerate(files)
            groups.append([row(f, "words", rank=n + 1, score={"cosine": 0.5 - n / 5}, **more) for n, f in pairs])
    write_pages(tmp_path, groups)
    first, second = ((tmp_path / f"table{part}.html").read_text("utf-8") for part in ("", "-2"))
    assert first.index(">zh<") < first.index(">en<")
    assert first.count("<img") == 4
    assert 'src="cat-zh-0.png"' in first
    assert "mean cosine 0.400" in first
    assert "&lt;tree&gt;" in second
    assert 'href="table-2.html">next' in first
    assert 'href="table.html">by language' in (tmp_path / "index.html").read_text("utf-8")


def test_the_words_are_beside_their_pictures_in_whatever_script_there_is_a_font_for(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    long = "蓝色背景上的猫 " * 40
    for words in ("a cat", long, "قطة زرقاء", "แมว", "😀"):
        write_pages(tmp_path, [[row("a.png", words)]])
        with Image.open(tmp_path / "contact-sheet.png") as sheet:
            assert sheet.width == gallery.THUMBNAIL + 16
            words_shown = np.asarray(sheet.convert("L"))[8:30]
        assert (words_shown < 128).any()
