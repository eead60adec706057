"""The rows of any source: a table, JSON lines, Parquet, a webdataset tar or a folder, from any row on."""

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
"""Of kinds whose rows can be counted without their pictures."""

_PACKED = (".jsonl", ".ndjson", ".csv", ".tsv", ".tar")
"""Kinds that may also end in `.gz`."""


class UnfinishedError(Exception):
    """A source cannot be read on; what was read of it stands. The message is one line."""


@dataclass(frozen=True)
class Source:
    """A source of rows.

    Attributes:
        place: a path or URL.
        columns: names of its fields.
        image_root: where relative paths of pictures begin; the source's own folder if empty.
        label: what its rows are called that have no id, `label:number`; its file's name if empty.
        encoding: of its texts; UTF-8, or UTF-16 with a byte-order mark, if empty.
    """

    place: str
    columns: Columns = field(default_factory=Columns)
    image_root: str = ""
    label: str = ""
    encoding: str = ""

    @property
    def name(self) -> str:
        """What its rows are called."""
        return self.label or PurePosixPath(self.place.rstrip("/")).name

    @property
    def root(self) -> str:
        """Where relative paths of pictures begin."""
        return self.image_root or parent_of(self.place)


def kind_of(place: str, retries: Retries = ONCE) -> str:
    """How a source is read: one of `KINDS`, or "folder".

    Args:
        place: a path or URL.
        retries: of each request.

    Raises:
        UserError: it is not there, or of no known kind.
    """
    try:
        filesystem, path = file_system_of(place)
        kind = retries(lambda: filesystem.info(path)["type"])
    except FileNotFoundError:
        raise UserError(f"there is no {place}") from None
    except Exception as error:  # a protocol whose package is not installed, no permission, no network
        raise UserError(f"cannot reach {place}: {one_line(error)}") from error
    return "folder" if kind == "directory" else ending_of(place)


def ending_of(place: str) -> str:
    """The kind of a file by its name.

    Raises:
        UserError: it is none that can be read.

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
    """Streams the rows of a source; a row that cannot be used is there too, with its error.

    Args:
        source: to read.
        cursor: where to begin.
        retries: of each request; after a fault that may pass the source is opened again and read on where it was.

    Yields:
        Each row, with the cursor after it.

    Raises:
        UserError: the source is none, or its columns have other names.
        UnfinishedError: it cannot be read on.

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
    """Names the source of an error, and what happens to it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # every file system of fsspec's has errors of its own
        raise UnfinishedError(f"{source.place}: {what} ({one_line(error)})") from error


def check_source(source: Source, retries: Retries = ONCE) -> str:
    """Reads the first row of a source, to see whether it can be read at all; of Parquet its schema.

    Returns:
        Its kind, as `kind_of` gives it.

    Raises:
        UserError: it cannot.
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
    """How many rows a source has; pictures are not read where that can be avoided.

    Raises:
        UserError: as `read_rows`.
        UnfinishedError: likewise.
    """
    kind = kind_of(source.place, retries)
    with told(source, "cannot be counted"):
        if kind in _COUNTERS:
            return _COUNTERS[kind](source, retries)
        return sum(1 for _ in _READERS[kind](source, FIRST, retries))
