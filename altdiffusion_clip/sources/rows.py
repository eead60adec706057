"""Reads the rows of any source, from any row on: a table, JSON lines, Parquet, a webdataset tar or a folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources import folders, parquet, tables, tars
from altdiffusion_clip.sources.places import ONCE, file_system_of, parent_of
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import FIRST, Columns, Cursor, Read

_READERS: dict[str, Callable[..., Iterator[Read]]] = {
    ".jsonl": tables.read_json_lines,
    ".ndjson": tables.read_json_lines,
    ".csv": tables.read_table,
    ".tsv": tables.read_table,
    ".parquet": parquet.read_parquet,
    ".tar": tars.read_tar,
    "folder": folders.read_folder,
}
KINDS = tuple(kind for kind in _READERS if kind != "folder")
_COUNTERS: dict[str, Callable[[Any, Retries], int]] = {".parquet": parquet.count_rows, ".tar": tars.count_rows}
"""Kinds whose rows can be counted without reading pictures."""

_PACKED = (".jsonl", ".ndjson", ".csv", ".tsv", ".tar")
"""Kinds that may be compressed as `.gz`."""


class UnfinishedError(Exception):
    """A source cannot be read further. What was read so far is valid. The message is one line."""


@dataclass(frozen=True)
class Source:
    """A source of rows.

    Attributes:
        place: a path or URL.
        columns: names of its fields.
        image_root: base of relative picture paths; the source's own folder if empty.
        label: names rows without an id, as `label:number`; the file's name if empty.
        encoding: of its texts; if empty, UTF-8 or what a byte-order mark says.
    """

    place: str
    columns: Columns = field(default_factory=Columns)
    image_root: str = ""
    label: str = ""
    encoding: str = ""

    @property
    def name(self) -> str:
        """The label of its rows."""
        return self.label or PurePosixPath(self.place.rstrip("/")).name

    @property
    def root(self) -> str:
        """The base of relative picture paths."""
        return self.image_root or parent_of(self.place)


def kind_of(place: str, retries: Retries = ONCE) -> str:
    """The kind of a source: one of `KINDS`, or "folder".

    Args:
        place: a path or URL.
        retries: of each request.

    Raises:
        UserError: it does not exist, or its kind is unknown.
    """
    try:
        filesystem, path = file_system_of(place)
        kind = retries(lambda: filesystem.info(path)["type"])
    except FileNotFoundError:
        raise UserError(f"there is no {place}") from None
    except Exception as error:  # a missing package, no permission, no network
        raise UserError(f"cannot reach {place}: {one_line(error)}") from error
    return "folder" if kind == "directory" else ending_of(place)


def ending_of(place: str) -> str:
    """The kind of a file according to its name.

    Raises:
        UserError: its kind is unknown.

    Example:
        >>> ending_of("s3://a/rows.jsonl.gz")
        '.jsonl'
    """
    path = PurePosixPath(place.lower())
    ending = path.suffix
    if ending == ".gz" and PurePosixPath(path.stem).suffix in _PACKED:
        return PurePosixPath(path.stem).suffix
    if ending == ".tgz":
        return ".tar"
    if ending not in KINDS:
        raise UserError(f"{place}: cannot read {ending or 'a file without an ending'}; give {', '.join(KINDS)}")
    return ending


def read_rows(source: Source, cursor: Cursor = FIRST, retries: Retries = ONCE) -> Iterator[Read]:
    """Streams the rows of a source. Unusable rows are included, with their errors.

    Args:
        source: to read.
        cursor: where to begin.
        retries: of each request. After a temporary error the source is reopened at the same position.

    Yields:
        Each row with the cursor after it.

    Raises:
        UserError: it is not a source, or its columns have other names.
        UnfinishedError: it cannot be read further.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rows.jsonl"
        ...     _ = path.write_text('{"image": "a.png", "text": "a cat"}')
        ...     [(row.row_id, row.text) for row, _ in read_rows(Source(str(path)))]
        [('rows.jsonl:0', 'a cat')]
    """
    with told(source, "breaks off"):
        yield from _READERS[kind_of(source.place, retries)](source, cursor, retries)


@contextmanager
def told(source: Source, what: str) -> Iterator[None]:
    """Turns any error into one that names the source and says what happened."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every file system of fsspec's has errors of its own
        raise UnfinishedError(f"{source.place}: {what} ({one_line(error)})") from error


def check_source(source: Source, retries: Retries = ONCE) -> str:
    """Checks that a source can be read, by its first row or its Parquet schema.

    Returns:
        Its kind, as in `kind_of`.

    Raises:
        UserError: it cannot be read.
    """
    kind = kind_of(source.place, retries)
    try:
        with told(source, "cannot be read"):
            if kind == ".parquet":
                parquet.count_rows(source, retries)
            else:
                next(_READERS[kind](source, FIRST, retries), None)
    except UnfinishedError as error:
        raise UserError(str(error)) from error
    return kind


def count_rows(source: Source, retries: Retries = ONCE) -> int:
    """Counts the rows of a source, without reading pictures if possible.

    Raises:
        UserError: as `read_rows`.
        UnfinishedError: likewise.
    """
    kind = kind_of(source.place, retries)
    with told(source, "cannot be counted"):
        if kind in _COUNTERS:
            return _COUNTERS[kind](source, retries)
        return sum(1 for _ in _READERS[kind](source, FIRST, retries))
