"""`altdiffusion demo`; the page itself is in tests/demo."""

import pytest

from altdiffusion_clip.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auth", "me"], "--auth takes a name and a password, such as --auth me:secret"),
        (["--port", "0"], "--port must be between 1 and 65535"),
        (["--queue", "0"], "--queue must be 1 or more"),
        (["--calls-per-minute", "0"], "--calls-per-minute must be 1 or more"),
        (["--max-upload-mb", "-1"], "--max-upload-mb must be 1 or more"),
        (["--model", "no/such/folder/here"], "there is no file or folder no/such/folder/here"),
    ],
)
def test_wrong_calls(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err
