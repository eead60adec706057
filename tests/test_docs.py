"""Every command and example in the README and in docs/ runs, in the order in which a reader meets them."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from altdiffusion_clip.cli import build_parser, main
from tests.demo.conftest import demo
from tests.pictures import held_out_pictures

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:`([\w./-]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)
SHRUNK = {"th,ko,hi,uk,ar,tr,vi,pl,nl,pt,it,es,de,fr,ru --seeds 0-4 --steps 10": "ar --seeds 0 --steps 2"}
"""Of a run that takes minutes."""
NOT_HERE = (
    "ray start",
    "--engine ray",
    "s3://bucket",
    "BAAI/",
    "my-altdiffusion/",
    "scores/ --top 30%",
    "sentences=all.tsv",
)
"""What takes more than is at hand is looked at, but not done.

A cluster is what tests/bulk/test_ray_engine.py has, and a file system that fails tests/bulk/test_faults.py.
"""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Of each block: the file that it is said to be, its language, its text."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1] or "", match[2], match[3]


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]


def prepare(place: Path) -> None:
    """What a reader is assumed to have: some pictures of their own."""
    cat, dog = (held_out_pictures()[number].path for number in (2, 4))
    for folder in ("mine", "classes/cat", "classes/dog"):
        (place / folder).mkdir(parents=True)
    for name, path in (("mine/1.png", cat), ("classes/cat/1.png", cat), ("classes/dog/1.png", dog)):
        shutil.copy(path, place / name)


def test_the_readme_is_short() -> None:
    for page in READMES:
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 150, page.name


def test_both_readmes_have_the_same_commands_and_links() -> None:
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    links = [set(re.findall(r"\]\((?!#|README)([^)#]+)", text)) - {"README.md"} for text in (english, chinese)]
    assert {link for link in links[0] if link.startswith("docs/")} == {
        link for link in links[1] if link.startswith("docs/")
    }
    shown = [[re.sub(r"\s+#.*|\".*?\"", "", each) for each in commands(text)] for text in (english, chinese)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)(#([^)]+))?\)", page.read_text(encoding="utf-8")):
        there = page if not target else (page.parent / target)
        assert there.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            known = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in known, f"{target}#{anchor}"


@pytest.mark.full
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prepare(tmp_path)
    if page.stem == "evaluation":
        (tmp_path / "pictures").mkdir()
        for name, number in (("cat", 2), ("dog", 4)):
            shutil.copy(held_out_pictures()[number].path, tmp_path / "pictures" / f"{name}.png")
        (tmp_path / "captions.txt").write_text("a cat\n一只狗\n", encoding="utf-8")
    for file, _, text in blocks(page):
        if file:
            (tmp_path / file).write_text(text, encoding="utf-8")
    names: dict[str, object] = {}
    for file, language, text in blocks(page):
        if file:
            continue
        if language == "python" and page.stem != "demo":
            exec(compile(text.replace('.to("cuda")', ""), page.name, "exec"), names)
        elif language == "console":
            for command in commands(text):
                run(command)


def run(command: str) -> None:
    if any(mark in command for mark in NOT_HERE):
        words = shlex.split(command.replace(" ...", ""), comments=True)
        if words[0] == "altdiffusion":
            build_parser().parse_args(words[1:])
        return
    for whole, few in SHRUNK.items():
        command = command.replace(whole, few)
    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        extra = re.search(r"\[(.*)\]", command)
        assert extra is None or set(extra[1].split(",")) <= EXTRAS.keys(), command
    elif words[:2] == ["altdiffusion", "demo"] or words[0] == "curl":
        return  # below, where a server runs
    elif words[0] == "altdiffusion":
        assert main(words[1:]) == 0, command
    else:
        raise AssertionError(f"nothing here runs {command!r}")


@pytest.mark.full
def test_the_demos_page() -> None:
    page = ROOT / "docs" / "demo.md"
    found = [command for _, language, text in blocks(page) if language == "console" for command in commands(text)]
    servers = [shlex.split(command)[2:] for command in found if command.startswith("altdiffusion demo")]
    assert len(servers) == 2
    with demo(*servers[1]) as server:
        asked = subprocess.run(["curl", "-s", f"{server.address}/health"], capture_output=True, text=True, check=True)
        assert '"ok"' in asked.stdout
    with demo(*servers[0]) as server:
        for command in found:
            if command.startswith("curl"):
                there = command.replace("http://127.0.0.1:7860", server.address)
                answer = subprocess.run(shlex.split(there), capture_output=True, text=True, check=True).stdout
                assert any(word in answer for word in ("ok", "altdiffusion_calls_total", "event_id")), command
        for _, language, text in blocks(page):
            if language == "python":
                exec(text.replace("http://127.0.0.1:7860", server.address), {})
