from pathlib import Path

import numpy as np
from PIL import Image

from altdiffusion_clip.gallery import write_contact_sheet, write_index


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


def test_the_page_escapes_and_sorts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a & b", "file": f"{i}.png", "seed": i, "rank": 3 - i, "score": {"cosine": i / 10}, "model": "<m>"}
        for i in range(3)
    ]
    rows.append({"prompt": "قطة", "file": "x.png", "seed": 0, "rank": None, "score": None, "model": "m"})
    write_index(tmp_path / "index.html", rows)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a &amp; b" in page
    assert "&lt;m&gt;" in page
    assert page.index("2.png") < page.index("1.png") < page.index("0.png")
    assert "#1 · cosine 0.200" in page
    assert 'dir="auto">قطة' in page
