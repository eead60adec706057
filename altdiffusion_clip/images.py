"""Reads pictures of any kind as PIL RGB, with one clear line for each that cannot be read."""

import io
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from altdiffusion_clip.errors import one_line

ImageSource = Image.Image | str | os.PathLike[str] | io.BytesIO | torch.Tensor | np.ndarray
"""A picture: PIL, a path, the bytes of a file, a tensor (3, height, width) or an array (height, width, 3).

Tensors and arrays are uint8, or float in [0, 1].
"""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
)
"""Endings of the files that are read from a folder."""


JPEG_MARK = b"\xff\xd8\xff"


@dataclass(frozen=True)
class BrokenImage:
    """A picture that could not be read.

    Attributes:
        index: its index in the input.
        name: its path, or what it is.
        reason: one line.
    """

    index: int
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class ImageError(ValueError):
    """A picture cannot be read. The message is one line and says why."""


def not_opened(error: FileNotFoundError | IsADirectoryError | PermissionError) -> ImageError:
    """The message for a picture that the file system cannot open."""
    if isinstance(error, FileNotFoundError):
        return ImageError("no such file")
    return ImageError("a folder, not a picture" if isinstance(error, IsADirectoryError) else "no permission to read it")


def load_image(source: ImageSource, at_least: int | None = None) -> Image.Image:
    """Reads a picture as RGB, upright, with transparent parts on white.

    Args:
        source: PIL picture, path, the bytes of a file, float or uint8 tensor (3, height, width), or array (height,
            width, 3).
        at_least: decode a JPEG at a half, a quarter or an eighth of its size, if its sides keep at least so many
            pixels. That is much faster.

    Raises:
        ImageError: it is missing, empty, truncated, not a picture, too large, or has the wrong shape.

    Example:
        >>> load_image(torch.zeros(3, 8, 6)).size
        (6, 8)
        >>> load_image("nowhere.png")
        Traceback (most recent call last):
        ...
        altdiffusion_clip.images.ImageError: no such file
    """
    try:
        return _load(source, at_least)
    except ImageError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise not_opened(error) from None
    except UnidentifiedImageError:
        raise ImageError("an empty file" if _is_empty(source) else "not a picture that Pillow knows") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too many pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"damaged ({one_line(error)})") from None


def _load(source: ImageSource, at_least: int | None) -> Image.Image:
    if isinstance(source, torch.Tensor):
        if source.ndim != 3 or source.shape[0] not in (1, 3):
            raise ImageError(f"a tensor of shape {tuple(source.shape)}; pictures are (3, height, width)")
        return _from_array(source.detach().float().cpu().permute(1, 2, 0).numpy(), source.dtype == torch.uint8)
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] not in (1, 3):
            raise ImageError(f"an array of shape {source.shape}; pictures are (height, width, 3)")
        return _from_array(source.astype(np.float32), source.dtype == np.uint8)
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    with warnings.catch_warnings():
        # Pillow only warns between one and two times its pixel limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _opened(source, at_least) as image:
            return _to_rgb(image)


def _opened(source: str | os.PathLike[str] | io.BytesIO, at_least: int | None) -> Image.Image:
    """Opens a file. A JPEG may exceed Pillow's pixel limit if its draft does not."""
    if at_least is None or not _is_jpeg(source):
        return Image.open(source)
    image, most = JpegImageFile(source), Image.MAX_IMAGE_PIXELS or math.inf
    # A progressive JPEG is decoded in full before it is made smaller.
    is_too_large = image.width * image.height > most and image.info.get("progressive")
    image.draft(None, (at_least, at_least))
    if is_too_large or image.width * image.height > most:
        raise ImageError("too many pixels")
    return image


def _is_jpeg(source: str | os.PathLike[str] | io.BytesIO) -> bool:
    if isinstance(source, io.BytesIO):
        return source.getbuffer()[:3] == JPEG_MARK
    with Path(source).open("rb") as file:
        return file.read(3) == JPEG_MARK


def pixels_of(data: bytes) -> int:
    """The pixels of an encoded picture according to its first bytes; 0 if only decoding can tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = io.BytesIO(data)
            with JpegImageFile(file) if data.startswith(JPEG_MARK) else Image.open(file) as image:
                return image.width * image.height
    except Image.DecompressionBombError:
        return 2 * (Image.MAX_IMAGE_PIXELS or 0)
    except Exception:  # Pillow's decoders raise nearly anything on damaged files
        return 0


def _is_empty(source: object) -> bool:
    if isinstance(source, io.BytesIO):
        return not source.getvalue()
    return isinstance(source, (str, os.PathLike)) and Path(source).stat().st_size == 0


def load_images(sources: list[ImageSource]) -> tuple[list[Image.Image], list[int], list[BrokenImage]]:
    """Reads pictures, and lists those that cannot be read.

    Returns:
        The pictures, the index of each in `sources`, and the broken ones.
    """
    images, places, broken = [], [], []
    for place, source in enumerate(sources):
        try:
            images.append(load_image(source))
            places.append(place)
        except ImageError as error:
            broken.append(BrokenImage(place, name_of(source, place), str(error)))
    return images, places, broken


def name_of(source: ImageSource, place: int) -> str:
    """The name of a picture in messages: its path, or its kind and index."""
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"image {place}")
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"{type(source).__name__} {place}"


def find_images(paths: list[Path]) -> list[Path]:
    """The named files, and the pictures in the named folders and below, sorted by folder.

    In folders, hidden files and the contact sheets of `generate` are left out.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if _is_picture_name(p) and p.is_file())
        else:
            found.append(path)
    return found


def _is_picture_name(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
        return False
    return path.name != "contact-sheet.png" or not path.with_name("results.jsonl").is_file()


def _from_array(array: np.ndarray, is_uint8: bool) -> Image.Image:
    if not np.isfinite(array).all():
        raise ImageError("it has values that are not finite")
    scaled = array if is_uint8 else array * 255
    if scaled.size == 0 or scaled.min() < -0.5 or scaled.max() > 255.5:
        raise ImageError("values outside [0, 1]; pictures are uint8, or float in [0, 1]")
    pixels = scaled.round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turned_upright(image: Image.Image) -> Image.Image:
    """Turns a picture as its EXIF orientation says, or leaves it as it is if that cannot be read.

    (`ImageOps.exif_transpose` also rewrites the whole EXIF block, and fails on the errors that cameras put there.)
    """
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow parses EXIF with struct, TIFF and XML readers
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()  # errors in the pixels are reported by decoding
    image = _turned_upright(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):
        # Pillow clips 16 bits to 8 when it converts, so scale instead.
        return Image.fromarray(
            (np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
