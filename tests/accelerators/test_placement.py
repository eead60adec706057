"""Everything that draws, scores and trains, on an accelerator: a GPU if there is one, else a simulated one."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = [f"{HERE / name}.py" for name in ("drawing", "scoring", "training")]


@pytest.mark.full
def test_nothing_is_left_on_the_cpu() -> None:
    # A process of its own, for torch cannot forget a device; without the common fixtures, which import too early.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", *TESTS]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert finished.returncode == 0, finished.stdout[-6000:]
