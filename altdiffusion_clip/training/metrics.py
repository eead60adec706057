"""The figures of a run: metrics.jsonl, and TensorBoard's files if it is installed."""

import importlib.util
import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Writes the figures of a run, one line a step; lines after the step that a run goes on from are dropped.

    Args:
        folder: of the run.
        step: that it goes on from.
        is_main: whether this process writes.
    """

    def __init__(self, folder: Path, step: int, is_main: bool = True) -> None:
        self._is_main = is_main
        self._board: Any = None
        if not is_main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS_FILE
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard", purge_step=step)

    def add(self, step: int, **figures: float) -> None:
        """Writes the figures of a step; JSON knows no NaN, so that becomes null."""
        if not self._is_main or not figures:
            return
        plain = {key: value if math.isfinite(value) else None for key, value in figures.items()}
        try:
            self._file.write(json.dumps({"step": step, **plain}) + os.linesep)
            self._file.flush()
        except OSError:  # a full disk: the weights matter more, and the loop warns about those
            pass
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(key, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_main:
            self._file.close()
            if self._board is not None:
                self._board.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; a process that was killed may leave half of the last."""
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
