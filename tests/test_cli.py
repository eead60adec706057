import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from altdiffusion_clip.cli import build_parser, main
from altdiffusion_clip.commands.completion import SHELLS


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


ALL = {parser.prog: parser for parser in parsers(build_parser())}


@pytest.mark.parametrize("command", ["", "generate", "rerank", "evaluate", "convert", "inspect"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*([command] if command else []), "--help"])
    assert stopped.value.code == 0
    assert "Usage: altdiffusion" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["help"], ["help", "train", "lora"]])
def test_help_without_a_dash(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"Usage: altdiffusion{''.join(f' {word}' for word in words[1:])} [-h]")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"altdiffusion-clip {version('altdiffusion-clip')}\n"


@pytest.mark.parametrize("name", ALL)
def test_help_is_in_sentences(name: str) -> None:
    assert not re.search(r"\['|Path\(|None|<class", ALL[name].format_help())
    for action in ALL[name]._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = [choice.help or "" for choice in action._choices_actions]
        else:
            texts = [action.help or ""]
        for text in texts:
            assert re.match(r"[A-Z.`]|cpu,|emoji |others:", text), f"{name}: {action.dest}: {text!r}"
            assert text.endswith("."), f"{name}: {action.dest}: {text!r}"


def test_every_example_in_the_help_is_a_call_that_is_understood() -> None:
    import shlex

    found = [line.strip() for parser in ALL.values() for line in (parser.epilog or "").splitlines()[1:]]
    assert len(found) > 15
    for line in found:
        words = shlex.split(line)
        assert words[0] == "altdiffusion"
        if ">" not in words and words[1] != "help":
            build_parser().parse_args(words[1:])


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("generate", "rerank", "negative-prompt"):
        assert word in script


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--recipe", "食谱"], "there is no recipe 食谱"),
        pytest.param(["rerank", "猫", "图片.png"], "图片.png: no such file", marks=pytest.mark.full),
    ],
)
def test_a_locale_without_chinese_takes_chinese_words(arguments: list[str], said: str) -> None:
    code = "from altdiffusion_clip.cli import main; main()"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, env=plain, timeout=120, check=False)
    assert said in ended.stderr.decode("utf-8")


def test_an_unknown_command_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["paint"])
    assert stopped.value.code == 2


@pytest.mark.full
def test_a_reader_that_stops_reading_is_no_error(tmp_path) -> None:
    code = "import sys; from altdiffusion_clip.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "rerank", "cat", str(tmp_path / "missing.png")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert b"Traceback" not in errors


def test_debug_shows_the_traceback(tmp_path) -> None:
    with pytest.raises(Exception, match="nothing to draw"):
        main(["generate", "--debug", "--output", str(tmp_path)])


def test_an_error_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the lines of several processes mix in containers, where Python often does not buffer."""
    written: list[str] = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None, isatty=lambda: False))
    assert main(["inspect", "no/such/folder/at/all"]) == 2
    assert [line for line in written if "altdiffusion" in line or line == "\n"] == [written[-1]]
    assert written[-1].startswith("altdiffusion: ")
    assert written[-1].endswith("\n")
