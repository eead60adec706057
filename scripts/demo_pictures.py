"""Takes the screenshots of the demo for the docs: draws, changes, ranks and compares in Debian's Chromium.

    altdiffusion demo --calls-per-minute 1000 &
    python scripts/demo_pictures.py http://127.0.0.1:7860 [--output docs]

It needs chromium and fonts for Chinese, Japanese, Korean and Arabic (fonts-noto-cjk, fonts-noto-core).
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from altdiffusion_clip.emoji.concepts import concepts, find_ground
from altdiffusion_clip.emoji.renders import Placement, render

FLAGS = ["--no-sandbox", "--disable-gpu"]
COLOURS = 128
PATIENCE = 180_000
"""Milliseconds. A CPU needs half a minute for a picture in each of eighteen languages."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    options = parser.parse_args()
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720}, locale="en-US")
        page.set_default_timeout(PATIENCE)
        page.goto(options.address)
        draw(page, "蓝色背景上的猫", "Draw and rank")
        keep(page, options.output / "demo.png")
        change(page)
        keep(page, options.output / "demo-change.png")
        with tempfile.TemporaryDirectory() as folder:
            rank(page, Path(folder))
        keep(page, options.output / "demo-rank.png")
        compare(page)
        keep(page, options.output / "demo-compare.png")
        page.close()
        size = {"width": 390, "height": 844}
        phone = browser.new_page(viewport=size, locale="zh-CN", color_scheme="dark")
        phone.set_default_timeout(PATIENCE)
        phone.goto(options.address)
        draw(phone, "قطة على خلفية زرقاء", "用你的语言")
        keep(phone, options.output / "demo-phone.png", full=True)
        browser.close()


def draw(page: Any, prompt: str, title: str) -> None:
    page.wait_for_selector(f"#title h1:has-text('{title}')")
    page.fill("#prompt textarea", prompt)
    page.click("#start")
    page.wait_for_function("document.querySelectorAll('#draw-gallery img').length >= 4")


def change(page: Any) -> None:
    page.click("#to-change")
    page.wait_for_selector("#painter .ready canvas")
    time.sleep(2)
    box = page.locator("#painter canvas").bounding_box()
    middle = box["x"] + box["width"] / 2
    for row in range(16):
        y = box["y"] + box["height"] * (0.08 + 0.03 * row)
        page.mouse.move(middle - 120, y)
        page.mouse.down()
        page.mouse.move(middle + 120, y, steps=5)
        page.mouse.up()
    page.fill("#change-prompt textarea", "蓝色背景上的熊猫")
    page.fill("#change-strength input[type=number]", "1")
    page.click("#change-start")
    page.wait_for_function("document.querySelectorAll('#change-gallery img').length >= 4")


def rank(page: Any, folder: Path) -> None:
    page.click("button[role=tab]:has-text('Rank')")
    pictures = []
    for thing in concepts()[:6]:
        pictures.append(folder / f"{thing.names['en']}.png")
        render(find_ground("blue"), (thing, Placement())).save(pictures[-1])
    page.set_input_files("#uploads input[type=file]", pictures)
    page.fill("#prompts textarea", "一只猫\na dog\nقطة على خلفية زرقاء")
    page.wait_for_function("document.querySelectorAll('#uploads .file').length >= 6")
    page.click("#rank")
    page.wait_for_selector("#ranking td")


def compare(page: Any) -> None:
    page.click("button[role=tab]:has-text('Compare')")
    page.click("#compare-start")
    page.wait_for_function("document.querySelectorAll('#compare-gallery img').length >= 18")


def keep(page: Any, path: Path, full: bool = False) -> None:
    """Writes a screenshot with few colours, so that the file is small."""
    page.mouse.move(0, 0)
    time.sleep(1)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, full_page=full)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main()
