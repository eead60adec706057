import json

import pytest

from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.concepts import LANGUAGES


def test_json_lines_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    command = "evaluate emoji --json --drawing --scenes --languages zh --prompts 2 --num-images 1"
    assert main(command.split()) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    retrieval, drawing, scenes = rows[: 3 * len(LANGUAGES)], rows[3 * len(LANGUAGES)], rows[3 * len(LANGUAGES) + 1 :]
    assert {(row["system"], row["language"]) for row in retrieval} == {
        (system, language) for system in ("teacher", "distilled", "student") for language in LANGUAGES
    }
    assert (drawing["language"], drawing["drawn_from"], drawing["prompts"], drawing["n"]) == ("zh", "prompt", 2, 1)
    assert [(row["language"], row["places"], row["prompts"]) for row in scenes] == [("zh", False, 2), ("zh", True, 2)]
    assert all(row["both"] <= row["one"] <= 100 for row in scenes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--languages de", "emoji-m9 speaks en zh"),
        ("--prompts 0", "--prompts must be between 1 and 180"),
        ("--prompts 181", "--prompts must be between 1 and 180"),
        ("--num-images 0", "--num-images must be 1 or more"),
    ],
)
def test_a_wrong_call_is_one_line(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "emoji", "--drawing", *options.split()]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert message in captured.err
    assert "Traceback" not in captured.err
