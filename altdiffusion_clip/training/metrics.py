"""Writes the figures of a run: metrics.jsonl, and TensorBoard files if it is installed."""

import importlib.util
import json
import math
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from accelerate import Accelerator

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Writes the figures of a run, one line per step. Lines after the step it continues from are dropped.

    Args:
        folder: of the run.
        step: to continue from.
        accelerator: of the run. Its main process writes, also to its trackers.
    """

    def __init__(self, folder: Path, step: int, accelerator: Accelerator) -> None:
        self._is_main = accelerator.is_main_process
        self._accelerator = accelerator
        self._board: Any = None
        if not self._is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard", purge_step=step)
            self._excepthook, threading.excepthook = threading.excepthook, self._unless_the_disk_is_full

    def add(self, step: int, **figures: float) -> None:
        """Writes the figures of a step. NaN becomes null, because JSON has no NaN."""
        if not self._is_main or not figures:
            return
        plain = {key: value if math.isfinite(value) else None for key, value in figures.items()}
        with suppress(OSError):  # a full disk: the weights matter more, and the loop warns about them
            self._file.write(json.dumps({"step": step, **plain}) + os.linesep)
            self._file.flush()
        with suppress(OSError):
            for key, value in figures.items() if self._board is not None else ():
                self._board.add_scalar(key, value, step)
        if self._accelerator.trackers:
            self._accelerator.log(figures, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_main:
            with suppress(OSError):
                self._file.close()
            if self._board is not None:
                with suppress(OSError):
                    self._board.close()
                threading.excepthook = self._excepthook

    def _unless_the_disk_is_full(self, met: threading.ExceptHookArgs) -> None:
        """Silences the traceback of TensorBoard's writer thread. The loop reports the error in one line."""
        if not (isinstance(met.exc_value, OSError) and type(met.thread).__name__ == "_AsyncWriterThread"):
            self._excepthook(met)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The figures of a run, one dictionary per line."""
    return [json.loads(line) for line in _lines(folder / METRICS_FILE)]


def _lines(path: Path) -> list[str]:
    """The complete lines of a file. A killed process may leave an incomplete last line."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            json.loads(line)
        except json.JSONDecodeError:
            continue
        lines.append(line)
    return lines
