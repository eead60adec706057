"""What a visitor of the page does, in a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from altdiffusion_clip.demo.texts import say

DESKTOP, PHONE = (1400, 1000), (390, 844)
SLOW = 60_000
"""Milliseconds to wait for anything on the page."""


class Visit:
    """One visitor's page, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int] = DESKTOP, **more: Any) -> None:
        width, height = size
        settings = {"viewport": {"width": width, "height": height}, "locale": "en-US", **more}
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW)
        self.address, self.width = address, width
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#title h1")
        wait_until_it_speaks(self.page, settings["locale"][:2])

    def close(self) -> None:
        """Checks what is left of the visit, and ends it."""
        self.check()
        self.context.close()

    def check(self) -> None:
        """Nothing was wrong, nothing came from elsewhere, and nothing is to be scrolled sideways."""
        width = self.page.evaluate("document.documentElement.scrollWidth")
        assert self.errors == []
        elsewhere = [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]
        assert elsewhere == []
        assert width <= self.width


def start_again(page: Any) -> None:
    """To the first tab, without the last mistake's message."""
    for close in page.locator(".toast-close").all():
        close.click()
    first = page.locator("button[role=tab]:visible").first
    if first.get_attribute("aria-selected") != "true":
        first.click()
        page.wait_for_selector("#start", state="visible")


def open_settings(page: Any) -> None:
    if not page.is_visible("#draw-seed input"):
        page.click("#settings button")
        page.wait_for_selector("#draw-seed input", state="visible")


def set_steps(page: Any, count: int) -> None:
    was_open = page.is_visible("#draw-seed input")
    open_settings(page)
    page.fill("#draw-steps input[type=number]", str(count))
    page.keyboard.press("Tab")
    if not was_open:
        page.click("#settings button")
        page.wait_for_selector("#draw-seed input", state="hidden")


def wait_until_it_speaks(page: Any, code: str) -> None:
    """The words come last; what is typed before them may be lost on the way."""
    page.wait_for_selector(f"#start:has-text('{say('start', code)}')")
    page.wait_for_selector(f"#title:has-text('{say('title', code)}')")
    if code != "en":  # Gradio may still put in the words of another component, and its value with them
        page.wait_for_timeout(1000)


def open_tab(page: Any, name: str) -> None:
    tab = page.locator("button[role=tab]:visible", has_text=name)
    if not tab.count():  # on a phone the last is behind three dots
        page.click(".overflow-menu > button")
        page.click(f".overflow-dropdown button:has-text('{name}')")
        return
    tab.first.click()


def draw(page: Any, prompt: str, count: int = 2) -> None:
    page.fill("#count input[type=number]", str(count))
    page.fill("#prompt textarea", prompt)
    with a_drawing(page, count):
        page.click("#start")


@contextmanager
def a_drawing(page: Any, count: int = 2) -> Iterator[None]:
    """What is done inside starts a drawing. It ends when the drawing does.

    The button "Stop" can be pressed only while the page draws. It is watched from before the start, because a quick
    drawing may end before anyone looks.
    """
    page.evaluate(
        """() => {
          const stop = document.querySelector("#stop");
          window.drawn = new Promise(resolve => {
            let begun = false;
            const look = () => { if (!stop.disabled) begun = true; else if (begun) resolve(); };
            new MutationObserver(look).observe(stop, {attributes: true});
          });
        }"""
    )
    yield
    page.evaluate("window.drawn")
    page.wait_for_function(f"document.querySelectorAll('#draw-gallery img').length >= {count}")
    page.wait_for_selector("#start:enabled")


def download(page: Any, selector: str, path: Path) -> Path:
    path.write_bytes(page.request.get(page.get_attribute(selector, "src")).body())
    return path


def drop(page: Any, selector: str, path: Path) -> None:
    """Drops a file as people do."""
    files = page.evaluate_handle(
        """([bytes, name]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
          return files;
        }""",
        [list(path.read_bytes()), path.name],
    )
    page.dispatch_event(selector, "drop", {"dataTransfer": files})


def seeds_of(page: Any) -> list[int]:
    captions = page.locator("#draw-gallery .grid-container .caption-label").all_inner_texts()
    return [int(caption.split()[-1]) for caption in captions]
