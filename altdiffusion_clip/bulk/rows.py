"""Pairs of a picture and a text as people have them: tables, JSON lines, Parquet, webdataset tars, folders.

Files may lie anywhere that fsspec reaches: a path, or `s3://`, `hf://`, `https://` and so on.
"""

import csv
import itertools
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.images import SUFFIXES, ImageError

MOST_CHARACTERS = 100_000
"""Of a text: whole books would only be cut to 77 tokens."""

KINDS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".tar")


@dataclass(frozen=True)
class Columns:
    """What the fields of a row are called.

    Attributes:
        image: a path or URL; in Parquet also the encoded picture itself.
        text: what it is compared with.
        language: of the text; may be missing.
        row_id: what the row is called; its place if missing.
    """

    image: str = "image"
    text: str = "text"
    language: str = "language"
    row_id: str = "id"


@dataclass(frozen=True)
class Located:
    """A picture in a file, or in a part of one, anywhere that fsspec reaches."""

    url: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The encoded picture.

        Raises:
            ImageError: it cannot be read.
        """
        try:
            with fsspec.open(self.url, "rb") as file:
                if self.offset:
                    file.seek(self.offset)
                return file.read() if self.size is None else file.read(self.size)
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except Exception as error:  # every file system of fsspec's has errors of its own
            raise ImageError(f"cannot be read ({one_line(error)})") from None


@dataclass(frozen=True)
class Row:
    """A picture and a text, or what is wrong with the row.

    Attributes:
        row_id: its id, or its place: `file:number`, from 0.
        image: where the picture is, or its bytes.
        text: may be in any language.
        language: as the row has it.
        error: one line; empty if the row can be scored.
    """

    row_id: str
    image: Located | bytes | None = None
    text: str = ""
    language: str = ""
    error: str = ""


def kind_of(source: str) -> str:
    """How a source is read: one of `KINDS`, or "folder".

    Raises:
        UserError: it is not there, or of no known kind.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        if filesystem.isdir(path):
            return "folder"
        found = filesystem.exists(path)
    except Exception as error:  # a protocol whose package is not installed, no permission, no network
        raise UserError(f"cannot reach {source}: {one_line(error)}") from error
    if not found:
        raise UserError(f"there is no {source}")
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in KINDS:
        raise UserError(f"{source}: no way to read {suffix or 'a file without an ending'}; give {', '.join(KINDS)}")
    return suffix


def read_rows(source: str, columns: Columns, start: int = 0, image_root: str = "") -> Iterator[Row]:
    """Streams the rows of a source; a row that cannot be used is there too, with its error.

    Args:
        source: a path or URL of a file, or of a folder of pictures with a text of the same name beside each.
        columns: names of the fields.
        start: rows to pass over.
        image_root: where relative paths of pictures begin; the source's own folder if empty.

    Raises:
        UserError: the source cannot be read at all.
    """
    kind = kind_of(source)
    root = image_root or _parent(source)
    reader: Callable[[str, Columns, int, str], Iterator[Row]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".csv": _table,
        ".tsv": _table,
        ".parquet": _parquet,
        ".tar": _tar,
        "folder": _folder,
    }[kind]
    yield from reader(source, columns, start, root)


def check_source(source: str, columns: Columns, image_root: str = "") -> None:
    """Reads the first row of a source, to see whether it can be read at all.

    Raises:
        UserError: it cannot.
    """
    next(read_rows(source, columns, 0, image_root), None)


def rows_or_error(
    source: str, columns: Columns, start: int = 0, image_root: str = "", count: int | None = None
) -> Iterator[Row]:
    """As `read_rows`, but a source that cannot be read on, since it is gone or damaged, ends with a row that says so.

    Args:
        source: as for `read_rows`.
        columns: likewise.
        start: likewise.
        image_root: likewise.
        count: rows that are known to be there; each that is missing then has its error.
    """
    number, reason = start, "the source is shorter than it was"
    try:
        for row in itertools.islice(read_rows(source, columns, start, image_root), count):
            yield row
            number += 1
        missing = 0 if count is None else start + count - number
    except Exception as error:  # every file system of fsspec's has errors of its own
        reason = f"cannot be read on ({one_line(error)})"
        missing = 1 if count is None else start + count - number
    for place in range(number, number + missing):
        yield Row(f"{_name(source)}:{place}", error=reason)


def _jsonl(source: str, columns: Columns, start: int, root: str) -> Iterator[Row]:
    with fsspec.open(source, "rb") as file:
        number = -1
        for line in file:
            if not line.strip():
                continue
            number += 1
            if number < start:
                continue
            place = f"{_name(source)}:{number}"
            try:
                record = json.loads(line)
            except ValueError:
                yield Row(place, error="no JSON")
                continue
            yield _row(record, place, columns, root) if isinstance(record, dict) else Row(place, error="no JSON object")


def _table(source: str, columns: Columns, start: int, root: str) -> Iterator[Row]:
    is_tsv = source.lower().endswith(".tsv")
    with fsspec.open(source, "r", encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = (line.replace("\0", "") for line in file)
        # Texts in a TSV have quotation marks of their own.
        reader = csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if is_tsv else csv.reader(lines)
        header = next(reader, [])
        _check_names(source, header, columns)
        for number, cells in enumerate(reader):
            if number < start:
                continue
            place = f"{_name(source)}:{number}"
            if len(cells) != len(header):
                yield Row(place, error=f"{len(cells)} cells in a table of {len(header)} columns")
            else:
                yield _row(dict(zip(header, cells, strict=True)), place, columns, root)


def _parquet(source: str, columns: Columns, start: int, root: str) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('Parquet files need pyarrow; pip install "altdiffusion-clip[score]"') from None
    with fsspec.open(source, "rb") as file:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{source} cannot be read: {one_line(error)}") from error
        names = parquet.schema_arrow.names
        _check_names(source, names, columns)
        wanted = [name for name in (columns.image, columns.text, columns.language, columns.row_id) if name in names]
        number = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if number + count <= start:
                number += count
                continue
            for batch in parquet.iter_batches(256, row_groups=[group], columns=wanted):
                for record in batch.to_pylist():
                    if number >= start:
                        yield _row(record, f"{_name(source)}:{number}", columns, root)
                    number += 1


def _check_names(source: str, names: Sequence[str], columns: Columns) -> None:
    if columns.image not in names or columns.text not in names:
        raise UserError(
            f"{source} has the columns {', '.join(names)[:200]}; {columns.image} and {columns.text} are expected, "
            "or name others with --image-column and --text-column"
        )


def _tar(source: str, columns: Columns, start: int, root: str) -> Iterator[Row]:
    del root
    with fsspec.open(source, "rb") as file:
        number = -1
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for stem, members in _samples(tar):
                    number += 1
                    if number >= start:
                        yield _tar_row(source, stem, members, tar, columns)
        except tarfile.TarError as error:
            if number < 0:
                raise UserError(f"{source} is no plain tar file: {error}") from None
            yield Row(f"{_name(source)}:{number + 1}", error=f"the tar file ends here, damaged ({error})")


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    key, members = "", dict[str, tarfile.TarInfo]()
    for member in tar:
        if not member.isfile():
            continue
        folder, base = posixpath.split(member.name)
        stem, _, ending = base.partition(".")
        name = posixpath.join(folder, stem)
        if members and name != key:
            yield key, members
            members = {}
        key = name
        members[ending.lower()] = member
    if members:
        yield key, members


def _tar_row(
    source: str, stem: str, members: dict[str, tarfile.TarInfo], tar: tarfile.TarFile, columns: Columns
) -> Row:
    place = f"{_name(source)}:{stem}"
    picture = next((member for ending, member in members.items() if f".{ending}" in SUFFIXES), None)
    record: dict[str, Any] = {}
    if "json" in members:
        try:
            record = json.loads(_content(tar, members["json"]))
        except ValueError:
            return Row(place, error="its .json is no JSON")
        if not isinstance(record, dict):
            return Row(place, error="its .json is no JSON object")
    text = record.get(columns.text, record.get("caption"))
    if "txt" in members:
        text = _content(tar, members["txt"]).decode("utf-8", "replace").strip()
    if picture is None:
        return Row(place, error="no picture")
    located = Located(source, picture.offset_data, picture.size)
    return _checked(place, located, text, record.get(columns.language))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file: IO[bytes] | None = tar.extractfile(member)
    return b"" if file is None else file.read()


def _folder(source: str, columns: Columns, start: int, root: str) -> Iterator[Row]:
    del columns, root
    filesystem, top = fsspec.core.url_to_fs(source)
    number = -1
    for folder, folders, files in filesystem.walk(top):
        folders.sort()
        names = set(files)
        for name in sorted(files):
            stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
            if suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            number += 1
            if number < start:
                continue
            path = posixpath.join(folder, name)
            place = posixpath.relpath(path, top)
            if f"{stem}.txt" not in names:
                yield Row(place, error=f"no {stem}.txt beside it")
                continue
            text = filesystem.cat_file(posixpath.join(folder, f"{stem}.txt")).decode("utf-8", "replace").strip()
            yield _checked(place, Located(filesystem.unstrip_protocol(path)), text, None)


def _row(record: dict[str, Any], place: str, columns: Columns, root: str) -> Row:
    given = record.get(columns.row_id)
    row_id = place if given is None or given == "" else str(given)
    image = record.get(columns.image)
    if isinstance(image, dict):  # as `datasets` writes pictures
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str) and image:
        image = Located(_under(root, image))
    elif not isinstance(image, bytes) or not image:
        return Row(row_id, error=f"no {columns.image}")
    return _checked(row_id, image, record.get(columns.text), record.get(columns.language))


def _checked(row_id: str, image: Located | bytes, text: Any, language: Any) -> Row:
    if not isinstance(text, str) or not text.strip():
        return Row(row_id, error="no text")
    if len(text) > MOST_CHARACTERS:
        return Row(row_id, error=f"a text of {len(text)} characters, where {MOST_CHARACTERS} are allowed")
    return Row(row_id, image, text, str(language or ""))


def _under(root: str, path: str) -> str:
    if "://" in path or path.startswith("/"):
        return path
    return f"{root.rstrip('/')}/{path}" if root else path


def _parent(source: str) -> str:
    return source.rpartition("/")[0] or ("" if "/" not in source else "/")


def _name(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2]
