"""Reads rows of webdataset tars, each once from beginning to end, with the pictures in the rows."""

import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import SUFFIXES
from altdiffusion_clip.sources.places import open_file
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import FIRST, Columns, Cursor, Read, Row, checked, field
from altdiffusion_clip.sources.texts import NOT_UTF8, decode, parse_json

if TYPE_CHECKING:
    from altdiffusion_clip.sources.rows import Source

Member = TypeVar("Member")
TEXT_ENDINGS = ("txt", "caption", "text")
"""Suffixes of the text beside a picture, in a tar or a folder."""

_MOST_BYTES = 1 << 28
"""Most bytes of a member. Larger ones cannot be pictures to score."""


def read_tar(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of a tar, as in `read_rows`."""
    for key, found, after in samples_from(source, cursor, retries, content_of):
        place = f"{source.name}:{key}"
        yield Row(place, error=found) if isinstance(found, str) else _row(place, found, source), after


def count_rows(source: "Source", retries: Retries) -> int:
    """Counts the rows, skipping pictures."""
    return sum(1 for _ in samples_from(source, FIRST, retries, lambda tar, member: b""))


def samples_from(
    source: "Source", cursor: Cursor, retries: Retries, take: Callable[[tarfile.TarFile, tarfile.TarInfo], Member]
) -> Iterator[tuple[str, dict[str, Member] | str, Cursor]]:
    """Names and files of samples with the cursor after each; at the end of a damaged tar, the error."""
    number = cursor.row if cursor.offset is not None else 0
    with open_file(source.place, cursor.offset or 0, retries) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members, after in samples(tar, lambda member: take(tar, member)):
                    number += 1
                    if number > cursor.row:
                        yield key, members, Cursor(number, after)
                file.seek(tar.offset)
                # tarfile treats an invalid header as the end.
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("no header")
        except tarfile.ReadError as error:  # all bytes arrived, so the tar itself is damaged
            if number == 0:
                raise UserError(f"{source.place} is not a plain tar file: {error}") from None
            yield f"{number}", f"the tar file ends here, damaged ({error})", Cursor(number + 1)


def samples(
    tar: tarfile.TarFile, take: Callable[[tarfile.TarInfo], Member]
) -> Iterator[tuple[str, dict[str, Member], int]]:
    """The samples of a webdataset tar: files with the same name, by suffix.

    Args:
        tar: open, at the beginning of a sample.
        take: extracts what is wanted from a file immediately, because a tar is read in one pass.

    Yields:
        The name, the extracted contents by suffix, and where the next sample begins.
    """
    key, members = "", dict[str, Member]()
    while (member := tar.next()) is not None:
        # Forgets members once they are read, because those of a million pictures would fill memory.
        tar.members.clear()  # type: ignore[attr-defined]
        folder, base = posixpath.split(member.name)
        if not member.isfile() or base.startswith("."):  # macOS adds ._NAME to each file
            continue
        stem, _, ending = base.partition(".")
        name = posixpath.join(folder, stem)
        if members and name != key:
            yield key, members, member.offset
            members = {}
        key = name
        members[ending.lower()] = take(member)
    if members:
        yield key, members, tar.offset


def picture_among(members: Mapping[str, Member]) -> Member | None:
    """The picture of a sample."""
    return next((file for ending, file in members.items() if f".{ending.rpartition('.')[2]}" in SUFFIXES), None)


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member; empty if it is too large for a picture.

    Raises:
        tarfile.ReadError: it ends too early.
    """
    file = tar.extractfile(member)
    if file is None or member.size > _MOST_BYTES:
        return b""
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError(f"{member.name} is cut off")
    return data


def _row(place: str, members: dict[str, bytes], source: "Source") -> Row:
    columns: Columns = source.columns
    picture = picture_among(members)
    record: Any = {}
    if "json" in members:
        try:
            record = parse_json(decode(members["json"], source.encoding))
        except UnicodeDecodeError:
            return Row(place, error=f"its .json is {NOT_UTF8}")
        except ValueError:
            return Row(place, error="its .json is no JSON")
        if not isinstance(record, dict):
            return Row(place, error="its .json is no JSON object")
    text = next((members[ending] for ending in TEXT_ENDINGS if members.get(ending, b"").strip()), None)
    try:
        said = field(record, columns.text) or record.get("caption") if text is None else decode(text, source.encoding)
    except UnicodeDecodeError:
        return Row(place, error=f"its text is {NOT_UTF8}")
    if picture is None:
        return Row(place, error="no picture")
    return checked(place, picture, said, field(record, columns.language))
