"""Processes that start in a moment: forked from one in which everything is imported already.

Importing torch, diffusers and transformers takes seconds, and a test that kills a command many times would do little
else. Where it matters what is imported and when, as in tests/test_plugin.py, a new Python is started instead.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

IMPORTED = [
    "tests.training.run_stage",
    *(f"altdiffusion_clip.training.{stage}" for stage in ("distill", "contrastive", "align")),
    *(f"altdiffusion_clip.commands.{name}" for name in ("train", "score", "generate", "convert")),
    "altdiffusion_clip.demo.server",
]
"""With all that they import."""


def forkserver() -> ForkServerContext:
    """Starts processes of `multiprocessing` in which this project is imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


class Command:
    """A running `altdiffusion ...`, as `subprocess.Popen` would have it, what it prints in files.

    Args:
        arguments: of the command.
        folder: for what it prints.
        prepare: called in the process before the command; importable by its name.
    """

    def __init__(self, arguments: Sequence[object], folder: Path, prepare: Callable[[], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stdout, self.stderr = (folder / f"{name}-{time.monotonic_ns()}.txt" for name in ("stdout", "stderr"))
        given = [str(argument) for argument in arguments]
        self._process = forkserver().Process(target=_main, args=(given, self.stdout, self.stderr, prepare))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`: negative if a signal ended it, None while it runs."""
        return self._process.exitcode

    def send_signal(self, signal: int) -> None:
        """Sends a signal, if it still runs."""
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, signal)

    def wait(self, timeout: float = 120.0) -> int:
        """Waits for its end, and gives its exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("altdiffusion", timeout)
        return self._process.exitcode


def _main(arguments: list[str], stdout: Path, stderr: Path, prepare: Callable[[], None] | None) -> None:
    import torch

    from altdiffusion_clip.cli import main

    for path, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), stream.fileno())
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.exit(main(arguments))
