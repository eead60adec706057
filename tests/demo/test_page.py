"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.judge import Judge
from altdiffusion_clip.images import load_image

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs Debian's chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PORT = 7893
ADDRESS = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "altdiffusion_clip.cli", "demo", "--port", str(PORT)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    deadline = time.monotonic() + 120
    while True:
        try:
            assert b'"ok"' in urllib.request.urlopen(f"{ADDRESS}/health").read()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)
    yield process
    process.terminate()
    assert process.wait(timeout=15) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1440, 900), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, server, browser) -> Iterator[object]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(ADDRESS)
    page.wait_for_selector("#title h1:has-text('Draw and rank')")
    yield page
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing to scroll sideways"
    context.close()


def draw(page, prompt: str) -> None:
    page.fill("#prompt textarea", prompt)
    page.click("#start")
    page.wait_for_selector("#status:has-text('step')")
    page.wait_for_selector("#status:has-text('4 drawn')")
    page.wait_for_selector("#gallery img")


def test_draws_a_cat_with_its_score(page, tmp_path: Path) -> None:
    draw(page, "蓝色背景上的猫")
    page.wait_for_function("document.querySelectorAll('#gallery img').length >= 4")
    assert page.inner_text("#gallery .caption-label >> nth=0").startswith("1 · cosine 0.")
    picture = tmp_path / "first.png"
    source = page.get_attribute("#gallery img >> nth=0", "src")
    picture.write_bytes(page.request.get(source).body())
    assert Judge.load().concepts_of([load_image(picture)])[0].names["en"] == "cat"

    page.fill("#prompt textarea", "")
    page.click("text=Settings")
    page.set_input_files("#restore input[type=file]", str(picture))
    page.wait_for_function("document.querySelector('#prompt textarea').value === '蓝色背景上的猫'")


def test_stops_and_draws_again(page) -> None:
    page.fill("#prompt textarea", "a dog")
    page.click("#start")
    page.wait_for_selector("#status:has-text('step')")
    page.click("#stop")
    page.wait_for_selector("#status:has-text('drawn,')")
    assert "4 drawn" not in page.inner_text("#status")
    draw(page, "a dog")


def test_speaks_chinese_and_keeps_what_was_typed(page) -> None:
    page.fill("#prompt textarea", "<b>قطة</b>")
    page.click("#language >> text=中文")
    page.wait_for_selector("#start:has-text('开始作画')")
    assert page.input_value("#prompt textarea") == "<b>قطة</b>"
    page.click("#language >> text=English")
    page.wait_for_selector("#start:has-text('Draw')")
    assert page.input_value("#prompt textarea") == "<b>قطة</b>"


def test_ranks_pictures_that_are_dropped(page, tmp_path: Path) -> None:
    page.click("button[role=tab]:has-text('Rank')")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = [held_out_pictures()[place].path for place in (4, 2, 12)]
    page.set_input_files("#uploads input[type=file]", [str(path) for path in (*pictures, tmp_path / "broken.png")])
    page.fill("#prompts textarea", "一只猫\na dog")
    page.wait_for_function("document.querySelectorAll('#uploads .file').length >= 4")
    page.click("#rank")
    page.wait_for_selector("#ranking td")
    assert "cat" in page.inner_text("#ranking tbody th >> nth=0")
    assert "broken.png" in page.inner_text("#rank-status")


def test_the_browsers_language_is_taken(server, browser) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(ADDRESS)
    page.wait_for_selector("#title h1:has-text('用您的语言')")
    context.close()


def test_files_of_the_server_cannot_be_read(server, browser) -> None:
    context = browser.new_context()
    for path in (
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../etc/passwd",
        "/file=/etc/passwd",
        f"/gradio_api/file={Path(__file__).absolute()}",
    ):
        answer = context.request.get(ADDRESS + path)
        assert answer.status in (403, 404), path
        assert "root:" not in answer.text()
    context.close()
