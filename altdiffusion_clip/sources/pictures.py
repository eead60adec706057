"""Encoded pictures that are read from their place when they are needed."""

import base64
import binascii
import io
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from PIL import Image

from altdiffusion_clip.errors import one_line
from altdiffusion_clip.images import ImageError, load_image, not_opened
from altdiffusion_clip.sources.places import ONCE, file_system_of, read_range
from altdiffusion_clip.sources.retries import PassingImageError, Retries, may_pass


@runtime_checkable
class StoredImage(Protocol):
    """A stored picture."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def is_there(self) -> bool:
        """Whether it exists."""

    def read(self, retries: Retries = ONCE) -> bytes:
        """Its encoded bytes.

        Raises:
            ImageError: it cannot be read.
        """


@dataclass(frozen=True)
class Located:
    """A picture in a file, or in part of one.

    Attributes:
        url: of the file, or its path.
        size: of the picture in bytes, if known.
        offset: where the part begins, in bytes; None if the picture is the whole file.
        is_base64: whether it is encoded in base64.
        key: the name of the part.
    """

    url: str
    size: int | None = None
    offset: int | None = None
    is_base64: bool = False
    key: str = ""

    @property
    def name(self) -> str:
        """The URL or path, with the key if it is a part."""
        return f"{self.url}: {self.key}" if self.key else self.url

    def is_there(self) -> bool:
        """Whether the file exists."""
        filesystem, path = file_system_of(self.url)
        return bool(filesystem.isfile(path))

    def read(self, retries: Retries = ONCE) -> bytes:
        """The encoded picture.

        Raises:
            ImageError: it cannot be read.
            PassingImageError: it cannot be read at the moment.
        """
        try:
            data = retries(self._read)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise not_opened(error) from None
        except Exception as error:  # each fsspec file system raises its own errors
            kind = PassingImageError if may_pass(error) else ImageError
            raise kind(f"cannot be read ({one_line(error)})") from None
        if not self.is_base64:
            return data
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise ImageError("damaged (not base64)") from None

    def _read(self) -> bytes:
        filesystem, path = file_system_of(self.url)
        return read_range(filesystem, path, self.size, self.offset)

    def with_size(self) -> "Located":
        """The same picture with the size that its file system reports."""
        if self.size is not None:
            return self
        try:
            filesystem, path = file_system_of(self.url)
            return replace(self, size=filesystem.info(path).get("size"))
        except Exception:  # each fsspec file system raises its own errors
            return self


def decode(picture: StoredImage | bytes, at_least: int | None = None, retries: Retries = ONCE) -> Image.Image:
    """Reads a stored picture as RGB, upright.

    Args:
        picture: encoded.
        at_least: as in `load_image`: a JPEG may be decoded smaller, which is faster.
        retries: of each request.

    Raises:
        ImageError: it cannot be read. The message says why.
        PassingImageError: it cannot be read at the moment.
    """
    data = picture if isinstance(picture, bytes) else picture.read(retries)
    if not data:
        raise ImageError("an empty file")
    return load_image(io.BytesIO(data), at_least)
