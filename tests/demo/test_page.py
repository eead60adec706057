"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.server import Service
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.demo.texts import say
from altdiffusion_clip.drawing.png_text import SETTINGS_KEY
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.images import load_image
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.ensembles import Panel
from tests.conftest import in_full
from tests.demo.conftest import Demo, demo, serving
from tests.demo.visits import (
    DESKTOP,
    PHONE,
    SLOW,
    Visit,
    a_drawing,
    download,
    draw,
    drop,
    open_settings,
    open_tab,
    seeds_of,
    set_steps,
    start_again,
)
from tests.pictures import held_out_pictures

FEW_STEPS = 4
"""Where it does not matter what is drawn."""

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(
    not Path(CHROMIUM).is_file(), reason="needs Debian's chromium (scripts/install-browser)"
)

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FIRST_VISITS = pytest.mark.parametrize(
    ("size", "locale"),
    [
        (DESKTOP, "en-US"),
        (PHONE, "zh-CN"),
        pytest.param(DESKTOP, "zh-CN", marks=pytest.mark.full),
        pytest.param(PHONE, "en-US", marks=pytest.mark.full),
    ],
)


@pytest.fixture(scope="module")
def server() -> Iterator[Demo]:
    with demo("--calls-per-minute", "1000") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Stay = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def staying(server: Demo, browser: Any) -> Iterator[Stay]:
    """Pages of visitors who stay, for a page takes seconds to open: what a test did is there for the next."""
    visits: dict[tuple[tuple[int, int], str], Visit] = {}

    @contextlib.contextmanager
    def stay(size: tuple[int, int] = DESKTOP, locale: str = "en-US") -> Iterator[Any]:
        if (size, locale) not in visits:
            scheme = "dark" if size == PHONE else "light"
            visits[size, locale] = Visit(browser, server.address, size, locale=locale, color_scheme=scheme)
            set_steps(visits[size, locale].page, FEW_STEPS)
        visit = visits[size, locale]
        start_again(visit.page)
        yield visit.page
        visit.check()

    yield stay
    for visit in visits.values():
        visit.context.close()


@pytest.fixture(params=[DESKTOP, *in_full(PHONE)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, staying: Stay) -> Iterator[Any]:
    with staying(request.param) as page:
        yield page


@pytest.fixture
def desktop(staying: Stay) -> Iterator[Any]:
    with staying() as page:
        yield page


def concept(path: Path) -> str:
    return recognise(load_image(path)).things[0].names["en"]


@pytest.mark.parametrize("page", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)
def test_draws_a_cat_and_restores_its_settings_from_a_dropped_picture(page: Any, tmp_path: Path) -> None:
    set_steps(page, 20)
    draw(page, "蓝色背景上的猫")
    assert page.inner_text("#draw-gallery .caption-label >> nth=0").startswith("1 · cosine 0.")
    picture = download(page, "#draw-gallery img >> nth=0", tmp_path / "first.png")
    assert concept(picture) == "cat"
    with page.expect_download() as archive:
        page.click("#draw-archive a[download]")
    with zipfile.ZipFile(archive.value.path()) as file:
        assert [row["rank"] for row in json.loads(file.read("results.json"))] == [1, 2]

    page.fill("#prompt textarea", "")
    drop(page, "body", picture)
    page.wait_for_function("document.querySelector('#prompt textarea').value === '蓝色背景上的猫'")
    with Image.open(picture) as opened:
        seed = json.loads(opened.text[SETTINGS_KEY])["seed"]
    open_settings(page)
    page.wait_for_function(f"document.querySelector('#draw-seed input')?.value === '{seed}'")
    set_steps(page, FEW_STEPS)


def test_the_settings_of_the_opened_picture_are_below_it(page: Any) -> None:
    draw(page, "蓝色背景上的猫")
    shown = page.inner_text("#draw-parameters").split()
    assert shown[0] == "蓝色背景上的猫"
    page.click("#draw-gallery .thumbnail-item >> nth=1")
    page.wait_for_function(
        "seed => !document.querySelector('#draw-parameters').innerText.includes(seed)",
        arg=shown[shown.index("Seed:") + 1],
    )


AXE = (Path(__file__).parents[1] / "fixtures" / "axe" / "axe.min.js").read_text(encoding="utf-8")


@FIRST_VISITS
def test_axe_finds_no_serious_fault(size: tuple[int, int], locale: str, staying: Stay) -> None:
    with staying(size, locale) as page:
        draw(page, "红色背景上的熊猫", count=1)
        for tab in (("draw", "change", "rank", "compare")) if size == DESKTOP else ("draw",):
            if tab != "draw":
                open_tab(page, say(tab, locale[:2]))
            page.evaluate(AXE)
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            serious = [
                (each["id"], node["target"], node["failureSummary"])
                for each in found["violations"]
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"]
            ]
            assert serious == []


@FIRST_VISITS
def test_a_first_visit(size: tuple[int, int], locale: str, server: Demo, browser: Any) -> None:
    visit = Visit(browser, server.address, size, locale=locale)
    page, code = visit.page, locale[:2]
    assert page.title() == say("title", code)
    assert page.evaluate("document.documentElement.lang") == code
    for key in ("again", "vary", "to-change", "copy"):
        assert page.is_disabled(f"#{key}"), "there is no picture yet"
    assert say("prompt_hint", code) == page.get_attribute("#prompt textarea", "placeholder")
    assert page.locator("button[aria-label='Share']").count() == 0
    page.fill("#count input[type=number]", "3")
    page.fill("#prompt textarea", "红色背景上的熊猫")
    page.focus("#prompt textarea")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#draw-gallery img")
    assert page.locator("#draw-status progress").count() == 1, "the first picture is there before the last is drawn"
    before, after = say("drawn", code, count=3, seconds=0, kept=3).split("0.0")
    page.wait_for_selector(f"#draw-status:has-text('{before}'):has-text('{after}')")
    assert 0 < float(page.inner_text("#draw-status").removeprefix(before).split()[0]) < 60, "seconds"
    page.wait_for_selector("#start:enabled")
    top = page.locator("#draw-gallery img >> nth=0").bounding_box()["y"]
    assert top < page.viewport_size["height"] - 100, "what was drawn is seen without scrolling"
    seeds = seeds_of(page)
    assert sorted(seeds) == list(range(min(seeds), min(seeds) + 3))
    assert min(seeds) > 100, "random"
    page.click("#draw-gallery .thumbnail-item >> nth=0")
    page.wait_for_selector("#draw-gallery .preview img")
    opened = page.locator("#draw-gallery .media-button img").bounding_box()
    assert min(opened["width"], opened["height"]) > min(400, page.viewport_size["width"] * 0.75)
    visit.close()


def test_settings_are_copied_pasted_and_kept_over_a_reload(server: Demo, browser: Any) -> None:
    visit = Visit(browser, server.address, permissions=["clipboard-read", "clipboard-write"])
    page = visit.page
    draw(page, "a panda on a red background", count=1)
    (seed,) = seeds_of(page)
    page.click("#copy")
    page.wait_for_selector("#draw-status:has-text('Settings copied.')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("a panda on a red background\nSteps: 20")
    assert f"Seed: {seed}" in copied
    draw(page, "a dog", count=1)
    page.reload()
    page.wait_for_function("document.querySelector('#prompt textarea')?.value === 'a dog'")
    page.click("#history button")
    page.click(f"#past button:has-text('a panda on a red background · {seed}')")
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a panda on a red background'")
    page.click("#settings button")
    page.wait_for_function(f"document.querySelector('#draw-seed input')?.value === '{seed}'")
    page.click("#draw-dice")
    page.wait_for_function("document.querySelector('#draw-seed input')?.value === '-1'")
    page.fill("#prompt textarea", "")
    page.keyboard.press("Control+V")
    page.wait_for_function(f"document.querySelector('#draw-seed input')?.value === '{seed}'")
    assert page.input_value("#prompt textarea") == "a panda on a red background"
    page.evaluate("navigator.clipboard.writeText('Steps of a staircase')")
    page.keyboard.press("Control+V")
    assert page.input_value("#prompt textarea").endswith("Steps of a staircase"), "a prompt like any other"
    visit.close()


@pytest.mark.parametrize(
    ("size", "locale", "said"), [(DESKTOP, "en-US", "Seed must be between"), (PHONE, "zh-CN", "随机种子须在")]
)
def test_a_mistake_names_its_field(size: tuple[int, int], locale: str, said: str, staying: Stay) -> None:
    with staying(size, locale) as page:
        page.fill("#prompt textarea", "a dog")
        open_settings(page)
        page.fill("#draw-seed input", "-5")
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
        assert page.input_value("#draw-seed input") == "-5"
        page.click("#start")
        page.wait_for_selector(f".toast-body:has-text('{said}')")
        page.click("#draw-dice")


def test_a_width_alone_is_drawn(desktop: Any, tmp_path: Path) -> None:
    open_settings(desktop)
    desktop.fill("#draw-width input[type=number]", "96")
    draw(desktop, "a dog", count=1)
    with Image.open(download(desktop, "#draw-gallery img >> nth=0", tmp_path / "wide.png")) as picture:
        assert picture.size == (96, 128)
    desktop.fill("#draw-width input[type=number]", "128")


def test_an_overlong_prompt_says_what_would_be_cut(desktop: Any) -> None:
    desktop.fill("#prompt textarea", "a cat, " * 250)
    desktop.click("#start")
    desktop.wait_for_selector(".toast-body:has-text('tokens, and 300 can be read')")


def test_a_prompt_that_the_model_does_not_know_gets_a_line(desktop: Any) -> None:
    draw(desktop, "a knight at night", count=1)
    desktop.wait_for_selector("#draw-status:has-text('does not know what the prompt names')")


def test_what_the_model_draws_is_one_click_away(desktop: Any) -> None:
    desktop.click("#about button")
    desktop.wait_for_selector("#about:has-text('panda')")
    desktop.wait_for_selector("#about:has-text('Cosine')")


def test_stops_and_draws_again(page: Any) -> None:
    page.fill("#count input[type=number]", "8")
    page.fill("#prompt textarea", "a dog")
    page.click("#start")
    page.wait_for_selector("#draw-status progress")
    page.click("#stop")
    page.wait_for_selector("#draw-status:has-text('drawn in')")
    assert "8 drawn" not in page.inner_text("#draw-status")
    draw(page, "a dog", count=1)


@pytest.mark.full
def test_again_and_vary(desktop: Any) -> None:
    draw(desktop, "a dog")
    second = seeds_of(desktop)[1]
    desktop.click("#draw-gallery .thumbnail-item >> nth=1")
    desktop.keyboard.press("Escape")
    with a_drawing(desktop):
        desktop.click("#again")
    assert sorted(seeds_of(desktop)) == [second, second + 1], "the chosen picture's seed comes first"
    with a_drawing(desktop):
        desktop.click("#vary")
    assert sorted(seeds_of(desktop)) == [second + 2, second + 3]


def test_speaks_chinese_and_keeps_what_was_typed(page: Any) -> None:
    page.fill("#prompt textarea", "<b>قطة</b>")
    page.click("#language >> text=中文")
    page.wait_for_selector("#start:has-text('生成')")
    assert page.input_value("#prompt textarea") == "<b>قطة</b>"
    page.click("#language >> text=English")
    page.wait_for_selector("#start:has-text('Draw')")
    assert page.input_value("#prompt textarea") == "<b>قطة</b>"


def test_what_is_typed_runs_in_its_own_direction(page: Any) -> None:
    page.fill("#prompt textarea", "قطة على خلفية زرقاء")
    assert page.evaluate("getComputedStyle(document.querySelector('#prompt textarea')).unicodeBidi") == "plaintext"
    assert page.evaluate("getComputedStyle(document.querySelector('#prompt textarea')).textAlign") == "start"


def test_ranks_pictures_that_are_brought(page: Any, tmp_path: Path) -> None:
    open_tab(page, "Rank")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures = [held_out_pictures()[place].path for place in (4, 2, 12)]
    page.set_input_files("#uploads input[type=file]", [str(path) for path in (*pictures, tmp_path / "broken.png")])
    page.fill("#prompts textarea", "一只猫\n<b>a dog</b>")
    page.wait_for_function("document.querySelectorAll('#uploads .file').length >= 4")
    assert not page.is_visible("#csv"), "there is no table yet"
    page.click("#rank")
    page.wait_for_selector("#ranking td")
    page.wait_for_selector("#csv a")
    assert page.locator("#ranking tbody img").count() == 3
    assert page.locator("#ranking [aria-label=best]").count() == 2, "one for each prompt"
    assert "cat" in page.inner_text("#ranking tbody th >> nth=0")
    assert page.inner_text("#ranking thead th >> nth=2") == "<b>a dog</b>"
    assert "broken.png" in page.inner_text("#rank-status")


def test_paints_over_a_picture_and_inpaints_it(page: Any, tmp_path: Path) -> None:
    draw(page, "蓝色背景上的猫", count=1)
    before = download(page, "#draw-gallery img >> nth=0", tmp_path / "before.png")
    page.click("#to-change")
    page.wait_for_selector("#painter .ready canvas")
    page.wait_for_function("document.querySelector('#change-prompt textarea').value === '蓝色背景上的猫'")
    for seen in ("#change-prompt textarea", "#change-start"):
        assert page.locator(seen).bounding_box()["y"] < page.viewport_size["height"] - 60, "above the fold"
    assert not page.is_visible("#change-picture img"), "the picture is shown once, where it is painted on"
    page.locator("#painter").scroll_into_view_if_needed()
    box = page.locator("#painter canvas").bounding_box()
    for row in range(10):  # the left half of the picture
        y = box["y"] + box["height"] * (0.05 + 0.1 * row)
        page.mouse.move(box["x"] + 5, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.35, y, steps=5)
        page.mouse.up()
    page.fill("#change-prompt textarea", "黑色背景上的猫")
    page.fill("#change-count input[type=number]", "1")
    page.click("#change-start")
    page.wait_for_selector("#change-status:has-text('1 drawn')")
    page.wait_for_selector("#change-gallery img")
    after = download(page, "#change-gallery img >> nth=0", tmp_path / "after.png")
    first, second = (np.asarray(load_image(path).convert("RGB")) for path in (before, after))
    assert (first[:, 112:] == second[:, 112:]).all(), "not painted"
    assert (first[:, :56] != second[:, :56]).any()


@pytest.mark.full
def test_one_idea_in_eighteen_languages(page: Any) -> None:
    open_tab(page, "Compare")
    page.click("#compare-start")
    page.wait_for_selector("#compare-status:has-text('18 drawn')", timeout=4 * SLOW)
    page.wait_for_function("document.querySelectorAll('#compare-gallery img').length >= 18")
    captions = page.locator("#compare-gallery .caption-label").all_inner_texts()
    assert captions[1].startswith("中文 · cosine 0.")
    assert len({caption.split("seed ")[1] for caption in captions}) == 1


def test_works_by_keyboard(desktop: Any) -> None:
    desktop.fill("#count input[type=number]", "1")
    desktop.focus("#prompt textarea")
    desktop.keyboard.type("a red apple")
    desktop.keyboard.press("Tab")
    assert desktop.evaluate("document.activeElement.id") == "start"
    with a_drawing(desktop, 1):
        desktop.keyboard.press("Enter")
    desktop.focus("button[role=tab]:visible >> nth=0")
    desktop.keyboard.press("Tab")
    desktop.keyboard.press("Enter")
    desktop.wait_for_selector("#change-prompt textarea", state="visible")


@pytest.mark.full
def test_those_who_wait_see_their_place(server: Demo, browser: Any) -> None:
    visits = [Visit(browser, server.address) for _ in range(3)]
    counts = (8, 1, 1)  # the first is long enough for the others to wait
    for visit, count in zip(visits, counts, strict=True):
        visit.page.fill("#count input[type=number]", str(count))
        visit.page.fill("#prompt textarea", "a dog")
    for visit in visits:
        visit.page.click("#start")
    visits[2].page.wait_for_selector("#draw-status:has-text('queue: 2/2')")
    for visit, count in zip(visits, counts, strict=True):
        visit.page.wait_for_selector(f"#draw-status:has-text('{count} drawn')")
        visit.close()


def test_a_mistake_is_one_line_and_the_page_goes_on(desktop: Any) -> None:
    desktop.fill("#prompt textarea", " ")
    desktop.click("#start")
    desktop.wait_for_selector(".toast-body:has-text('The prompt is empty.')")
    desktop.wait_for_selector("#start:enabled")
    draw(desktop, "a dog", count=1)


@pytest.mark.full
def test_one_call_too_many_is_said(browser: Any, studio: Studio) -> None:
    with serving(Service(studio, Limits(calls_per_minute=1))) as address:
        visit = Visit(browser, address)
        draw(visit.page, "a dog")
        visit.page.click("#start")
        visit.page.wait_for_selector("text=Too many requests. Try again in a minute.")
        visit.page.wait_for_selector("#start:enabled")
        visit.errors = [said for said in visit.errors if "429" not in said]  # Chromium itself names it
        visit.close()


@pytest.mark.full
def test_a_licence_is_accepted_once(browser: Any, pipe: Any, scorer: Any, tmp_path: Path) -> None:
    shutil.copy(emoji_m18_folder() / "model_index.json", tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
    with serving(Service(Studio(pipe, Panel([AltCLIPJudge(scorer)]), str(tmp_path)), Limits())) as address:
        visit = Visit(browser, address)
        page = visit.page
        page.wait_for_selector("#terms:has-text('CreativeML OpenRAIL-M')")
        page.fill("#prompt textarea", "a dog")
        page.click("#start")
        page.wait_for_selector(".toast-body:has-text('accept the model')")
        page.check("#accept input")
        page.wait_for_selector("#accept", state="hidden")
        page.wait_for_selector("#start:enabled")
        draw(page, "a dog")
        page.reload()
        page.wait_for_selector("#terms")
        page.wait_for_selector("#accept", state="hidden")
        draw(page, "a dog")
        visit.close()
