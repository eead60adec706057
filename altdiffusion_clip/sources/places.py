"""Files anywhere that fsspec can reach: paths, `s3://`, `hf://`, `https://` and so on."""

import gzip
import hashlib
import io
import json
import os
import posixpath
from typing import IO, Any

import fsspec

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources.retries import Retries, ShortReadError

ONCE = Retries(attempts=1)
BUFFER = 1 << 16
"""Bytes to request from a file at once. Remote file systems read ahead in larger blocks."""


def is_remote(place: str) -> bool:
    """Whether a place is a URL and not a path."""
    return "://" in place


def file_system_of(place: str) -> tuple[Any, str]:
    """The file system of a place, and its path there. A local path is taken literally, including `::`."""
    if is_remote(place):
        return fsspec.core.url_to_fs(place)
    return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(place))  # noqa: PTH100, PTH111


def same_place(place: str) -> str:
    """Normalises a place, for comparison.

    Example:
        >>> same_place("/data/./a/../rows.jsonl")
        '/data/rows.jsonl'
    """
    if not is_remote(place):
        return file_system_of(place)[1]
    protocol, _, rest = place.partition("://")
    return same_place(rest) if protocol == "file" else f"{protocol}://{rest.rstrip('/')}"


def parent_of(place: str) -> str:
    """The folder of a place."""
    return posixpath.dirname(place.rstrip("/"))


def under(root: str, path: str) -> str:
    """Resolves a path relative to a folder. URLs and absolute paths are left alone."""
    if is_remote(path) or path.startswith("/"):
        return path
    return f"{root.rstrip('/')}/{path}" if root else path


def read_range(filesystem: Any, path: str, size: int | None = None, offset: int | None = None) -> bytes:
    """Reads a small file, or part of one, in one request.

    Args:
        filesystem: from fsspec.
        path: in the file system.
        size: the number of bytes to read, or the size of the file, if known.
        offset: where the part begins; None for the whole file.

    Raises:
        ShortReadError: fewer bytes arrived.
    """
    if offset is None:
        data: bytes = filesystem.cat_file(path)
    else:
        data = filesystem.cat_file(path, offset, None if size is None else offset + size)
    if size is not None and len(data) < size:
        raise ShortReadError(f"{len(data)} bytes of {size}")
    return data


class _WholeFile(io.RawIOBase):
    """A file that is reopened after temporary errors, and raises if it has fewer bytes than it should."""

    def __init__(self, filesystem: Any, path: str, retries: Retries, **options: Any) -> None:
        self._file: Any = None
        self._open = lambda: filesystem.open(path, "rb", **options)
        self._retries, self._at = retries, 0
        self._size: int | None = retries(lambda: filesystem.info(path).get("size"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._retries(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _read(self, count: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open()
            if self._file.tell() != self._at:
                self._file.seek(self._at)
            data: bytes = self._file.read(count)
            if not data and self._size is not None and self._at < self._size:
                raise ShortReadError(f"the file ends after {self._at} bytes of {self._size}")
        except Exception:
            self._close()
            raise
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            if self._size is None:
                raise io.UnsupportedOperation("the file system does not say how large the file is")
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self._at
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._close()
        super().close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def open_file(place: str, offset: int = 0, retries: Retries = ONCE, **options: Any) -> IO[bytes]:
    """Opens a file for reading. A `.gz` file is decompressed, and a truncated file raises.

    Args:
        place: a path or URL.
        offset: of the first byte to read; for a `.gz` file in the decompressed data.
        retries: of each request.
        **options: for the file system's `open`.

    Raises:
        ShortReadError: while reading, if fewer bytes arrive than there are.
    """
    filesystem, path = file_system_of(place)
    whole: IO[bytes] = io.BufferedReader(_WholeFile(filesystem, path, retries, **options), BUFFER)
    if place.lower().endswith((".gz", ".tgz")):
        whole = gzip.GzipFile(fileobj=whole)  # type: ignore[assignment]
    if offset:
        whole.seek(offset)
    return whole


def stamp_of(place: str, retries: Retries = ONCE) -> str:
    """A stamp that changes with the file or folder: sizes, and the file system's checksums or times.

    Args:
        place: a path or URL.
        retries: of each request.

    Raises:
        UserError: it does not exist or cannot be reached.
    """
    try:
        filesystem, path = file_system_of(place)
        info = retries(lambda: filesystem.info(path))
        if info["type"] == "directory":
            found = retries(lambda: filesystem.find(path, detail=True))
            files = [[posixpath.relpath(name, path), info.get("size")] for name, info in sorted(found.items())]
            return hashlib.blake2b(json.dumps(files).encode(), digest_size=12).hexdigest()
    except FileNotFoundError:
        raise UserError(f"there is no {place}") from None
    except Exception as error:
        raise UserError(f"cannot reach {place}: {one_line(error)}") from error
    mark = next((info[key] for key in ("ETag", "etag", "md5") if info.get(key)), "")
    when = next((info[key] for key in ("mtime", "LastModified", "last_modified", "updated") if info.get(key)), "")
    return f"{info.get('size')} bytes, {mark or ''} {when}".strip(", ")
