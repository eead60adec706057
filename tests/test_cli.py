import subprocess
import sys

import pytest

from altdiffusion_clip.cli import main


@pytest.mark.parametrize("command", ["", "generate", "rerank", "evaluate", "convert", "inspect"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*([command] if command else []), "--help"])
    assert stopped.value.code == 0
    assert "usage: altdiffusion" in capsys.readouterr().out


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
