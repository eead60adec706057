"""Reading what people have, a record at a time: JSONL, TSV, CSV, Parquet and Moses files."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources.tables import cells_of
from altdiffusion_clip.sources.texts import encoding_of

Record = dict[str, Any]


class LeftOut:
    """Counts what had to be left out, and why; the first of each kind is named.

    Example:
        >>> left_out = LeftOut()
        >>> left_out.add("empty caption", "line 3")
        >>> left_out.add("empty caption", "line 9")
        >>> str(left_out)
        '2 left out: empty caption 2 (first: line 3)'
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, reason: str, place: str) -> None:
        """Counts one."""
        self._counts[reason] += 1
        self._first.setdefault(reason, place)

    def __len__(self) -> int:
        return self._counts.total()

    def as_dict(self) -> dict[str, int]:
        """How many for each reason."""
        return dict(self._counts)

    def __str__(self) -> str:
        reasons = ", ".join(f"{why} {n} (first: {self._first[why]})" for why, n in self._counts.items())
        return f"{len(self)} left out: {reasons}" if len(self) else "nothing left out"


def moses_files(path: Path) -> dict[str, Path]:
    """The files of a Moses corpus by language: NAME.en, NAME.zh, ... beside each other, for NAME."""
    found = path.parent.glob(path.name + ".*") if path.name and path.parent.is_dir() else []
    return {file.suffix[1:]: file for file in sorted(found) if file.is_file()}


def files_of(path: Path) -> list[Path]:
    """The files that a record file's name stands for.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    files = list(moses_files(path).values())
    if not files:
        raise UserError(
            f"there is no {path}; give a .jsonl, .tsv, .csv or .parquet file, or NAME for NAME.en and NAME.zh"
        )
    return files


def read_records(path: Path, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    """Streams the records of a file, each with its place for messages.

    Args:
        path: .jsonl or .json (an object a line), .tsv or .csv (a header line), .parquet, or NAME of a Moses corpus
            (NAME.en, NAME.zh, ..., line by line translations of each other).
        left_out: counts the lines that cannot be read.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    files_of(path)
    kind = path.suffix.lower() if path.is_file() else "moses"
    try:
        if kind in (".jsonl", ".json", ".ndjson"):
            yield from _jsonl(path, left_out)
        elif kind in (".tsv", ".csv", ".txt"):
            yield from _table(path, "," if kind == ".csv" else "\t", left_out)
        elif kind in (".parquet", ".pq"):
            yield from _parquet(path)
        elif kind == "moses":
            yield from _moses(path)
        else:
            raise UserError(f"{path}: cannot read {kind or 'a file without an ending'}; give .jsonl, .tsv or .parquet")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}") from error


def _jsonl(path: Path, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    with path.open(encoding=_encoding_of(path)) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path.name} line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                left_out.add("not JSON", place)
                continue
            if isinstance(record, dict):
                yield place, record
            else:
                left_out.add("not an object", place)


def _table(path: Path, delimiter: str, left_out: LeftOut) -> Iterator[tuple[str, Record]]:
    with path.open(encoding=_encoding_of(path), newline="") as file:
        reader = cells_of((line.replace("\0", "") for line in file), delimiter == "\t")
        header = next(reader, [])
        for number, row in enumerate(reader, start=2):
            if len(row) > len(header):
                left_out.add("more columns than the header", f"{path.name} line {number}")
            elif row:
                yield f"{path.name} line {number}", dict(zip(header, row, strict=False))


def _encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        return encoding_of(file.read(4))


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError("reading Parquet needs pyarrow: pip install 'altdiffusion-clip[train]'") from error
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                yield f"{path.name} row {number}", record
    except ArrowException as error:
        raise UserError(f"{path} is not a whole Parquet file: {one_line(error)}") from error


def _moses(path: Path) -> Iterator[tuple[str, Record]]:
    files = moses_files(path)
    handles = {language: file.open(encoding="utf-8") for language, file in files.items()}
    try:
        sentinel = object()
        number = 0
        while True:
            number += 1
            lines = {language: next(handle, sentinel) for language, handle in handles.items()}
            ended = [language for language, line in lines.items() if line is sentinel]
            if len(ended) == len(lines):
                return
            if ended:
                raise UserError(f"{files[ended[0]]} ends at line {number - 1}, before the other languages of {path}")
            yield f"{path.name} line {number}", {language: str(line).strip() for language, line in lines.items()}
    finally:
        for handle in handles.values():
            handle.close()
