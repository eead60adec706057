"""Reads training records from tables and Moses files, and counts what is left out."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources import records
from altdiffusion_clip.sources.names import expand
from altdiffusion_clip.sources.places import is_remote
from altdiffusion_clip.sources.records import Record
from altdiffusion_clip.sources.texts import refuse


class LeftOut:
    """Counts what was left out, by reason, and names the first of each kind.

    Example:
        >>> left_out = LeftOut()
        >>> left_out.add("empty caption", "row 3")
        >>> left_out.add("empty caption", "row 9")
        >>> str(left_out)
        '2 left out: empty caption 2 (first: row 3)'
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
        """The counts by reason."""
        return dict(self._counts)

    def __str__(self) -> str:
        reasons = ", ".join(f"{why} {n} (first: {self._first[why]})" for why, n in self._counts.items())
        return f"{len(self)} left out: {reasons}" if len(self) else "nothing left out"


def places_of(data: Iterable[str | Path]) -> list[str]:
    """Expands the names of data with `sources.names.expand`.

    Raises:
        UserError: a pattern matches nothing.
    """
    return expand([str(name) for name in data])


def name_of(place: str) -> str:
    """The name of a place in messages: its file name."""
    return PurePosixPath(place.rstrip("/")).name


def moses_files(place: str) -> dict[str, Path]:
    """The files of a Moses corpus by language: NAME.en, NAME.zh and so on."""
    path = Path(place)
    if is_remote(place) or path.exists() or not path.name or not path.parent.is_dir():
        return {}
    return {file.suffix[1:]: file for file in sorted(path.parent.glob(path.name + ".*")) if file.is_file()}


def files_of(place: str) -> list[str]:
    """The files of a table or a Moses corpus.

    Raises:
        UserError: there are none.
    """
    if is_remote(place) or Path(place).is_file():
        return [place]
    files = [str(file) for file in moses_files(place).values()]
    if not files:
        raise UserError(
            f"there is no {place}; give a .jsonl, .tsv, .csv or .parquet file, or NAME for NAME.en and NAME.zh"
        )
    return files


def read_records(place: str | Path, left_out: LeftOut, encoding: str = "") -> Iterator[tuple[str, Record]]:
    """Streams the records of a file, each with its position for messages.

    Args:
        place: path or URL of a .jsonl (one object per line), .tsv or .csv (with a header) or .parquet file; or NAME of
            a Moses corpus (NAME.en, NAME.zh, ..., which are line-by-line translations of each other).
        left_out: counts the rows that cannot be read.
        encoding: of texts that are not UTF-8 and have no byte-order mark.

    Raises:
        UserError: the file does not exist, or is of another kind.
    """
    place = str(place)
    files_of(place)
    moses = moses_files(place)
    if moses:
        yield from _moses(place, moses, encoding)
        return
    if not records.is_table(place):
        ending = PurePosixPath(place).suffix
        raise UserError(f"{place}: cannot read {ending or 'a file without an ending'}; give .jsonl, .tsv or .parquet")
    for number, record in enumerate(records.read_records(place, encoding, pads=True), start=1):
        where = f"{name_of(place)} row {number}"
        if isinstance(record, str):
            left_out.add(record, where)
        else:
            yield where, record


def _moses(place: str, files: dict[str, Path], encoding: str) -> Iterator[tuple[str, Record]]:
    handles = {language: file.open(encoding=encoding or "utf-8") for language, file in files.items()}
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
                raise UserError(f"{files[ended[0]]} ends at line {number - 1}, before the other languages of {place}")
            yield f"{name_of(place)} row {number}", {lang: str(line).strip() for lang, line in lines.items()}
    except UnicodeDecodeError as error:
        raise refuse(place, error) from error
    finally:
        for handle in handles.values():
            handle.close()
