"""Pictures where a data set keeps them: as files, in tar files, in lines of base64, in rows of Parquet."""

import base64
import binascii
import functools
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError, load_image
from altdiffusion_clip.sources.tars import samples


class StoredImage(Protocol):
    """A picture that is read when it is needed."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def is_there(self) -> bool:
        """Whether there is anything to read."""

    def read(self) -> bytes:
        """Its bytes, as encoded.

        Raises:
            ImageError: they cannot be read.
        """


@dataclass(frozen=True)
class ImageFile:
    """A picture in a file, or in a part of one.

    Attributes:
        path: the file.
        offset: where the picture begins, in bytes.
        size: its bytes; to the end if None.
        is_base64: it is written in base64.
        key: its name, if it is not the file's.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    is_base64: bool = False
    key: str = ""

    @property
    def name(self) -> str:
        """The path, with the key of a part."""
        return f"{self.path}: {self.key}" if self.key else str(self.path)

    def is_there(self) -> bool:
        """Whether the file is there."""
        return self.path.is_file()

    def read(self) -> bytes:
        """The encoded picture."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(-1 if self.size is None else self.size)
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror or error})") from None
        if not self.is_base64:
            return data
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise ImageError("damaged (not base64)") from None


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a cell of a Parquet file, as bytes or as the object that `datasets` writes.

    Attributes:
        path: the file.
        column: its name.
        group: row group.
        row: within the group.
    """

    path: Path
    column: str
    group: int
    row: int

    @property
    def name(self) -> str:
        """The path and the place."""
        return f"{self.path}: row {self.row} of group {self.group}"

    def is_there(self) -> bool:
        """Whether the file is there."""
        return self.path.is_file()

    def read(self) -> bytes:
        """The encoded picture."""
        cell = _column(self.path, self.column, self.group)[self.row].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ImageError("no bytes of a picture")
        return data


@functools.lru_cache(maxsize=2)
def _column(path: Path, column: str, group: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read_row_group(group, [column]).column(0).combine_chunks()


def decode(data: bytes) -> Image.Image:
    """Reads an encoded picture as RGB, upright.

    Raises:
        ImageError: it cannot be read; the message says why.
    """
    if not data:
        raise ImageError("empty")
    return load_image(io.BytesIO(data))


def find_folder(folder: Path, *names: str) -> Path:
    """The first of some folders that is there, or the folder that they would lie in."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def tar_samples(path: Path) -> Iterator[dict[str, ImageFile]]:
    """The samples of a webdataset tar: its files by their endings, those of one name together.

    Raises:
        UserError: it is no tar, or a compressed one.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            found = samples(tar, lambda file: ImageFile(path, file.offset_data, file.size, key=file.name))
            for _, members, _ in found:
                yield members
    except (tarfile.TarError, EOFError):
        raise UserError(f"{path} is no plain tar file; unpack it if it is compressed, or fetch it again") from None
