"""Scales very long pictures only where a vision tower looks."""

from typing import Any

import numpy as np
from PIL import Image

LONG = 2.0
"""Pictures whose longer side exceeds this many times the shorter are cropped before they are scaled."""

_BITS = 22  # of Pillow's fixed-point weights
_REACH = 2.0  # of the bicubic filter, in pixels of the coarser grid


def middle_of_long(image: Image.Image, image_processor: Any) -> Image.Image:
    """Gives what a processor would see of a long picture, by scaling only its middle.

    CLIP's processors scale the shorter side to the tower's and then crop the square in the middle. For a picture of
    1 x 20,000 pixels, they first make one of 224 x 4,480,000. The result here equals their square to the last digit,
    and passes through them unchanged.

    Args:
        image: RGB.
        image_processor: transformers'.

    Returns:
        A square of the tower's side, or the picture itself if it is not long or the processor does not crop.

    Example:
        >>> from transformers import CLIPImageProcessor
        >>> processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
        >>> middle_of_long(Image.new("RGB", (20_000, 1)), processor).size
        (32, 32)
    """
    side = _side_of_square(image_processor)
    shorter, longer = sorted(image.size)
    if side is None or longer <= LONG * shorter:
        return image
    scaled = int(side * longer / shorter)  # rounds and centres as transformers does
    first = (scaled - side) // 2
    if image.width > image.height:  # Pillow scales rows first, then columns
        rows = _scaled(np.asarray(image), scaled, first, side)
        return Image.fromarray(rows).resize((side, side), Image.Resampling.BICUBIC)
    columns = np.asarray(image.resize((side, image.height), Image.Resampling.BICUBIC))
    return Image.fromarray(_scaled(columns.swapaxes(0, 1), scaled, first, side).swapaxes(0, 1))


def _side_of_square(image_processor: Any) -> int | None:
    """The side of the square that a processor crops from the middle; None unless it does so as CLIP does."""
    side = (getattr(image_processor, "size", None) or {}).get("shortest_edge")
    crop = getattr(image_processor, "crop_size", None) or {}
    cuts = getattr(image_processor, "do_resize", False) and getattr(image_processor, "do_center_crop", False)
    is_bicubic = getattr(image_processor, "resample", None) == Image.Resampling.BICUBIC
    return side if cuts and is_bicubic and crop.get("height") == crop.get("width") == side else None


def _scaled(pixels: np.ndarray, size: int, first: int, count: int) -> np.ndarray:
    """Computes some columns of Pillow's bicubic scaling of rows, in Pillow's own arithmetic.

    Args:
        pixels: uint8 (rows, columns, 3).
        size: columns of the whole scaled picture.
        first: the first column to compute.
        count: how many columns to compute.

    Returns:
        uint8 (rows, count, 3).
    """
    length = pixels.shape[1]
    scale = length / size
    coarser = max(scale, 1.0)
    centre = (np.arange(first, first + count) + 0.5) * scale
    start = np.maximum(np.trunc(centre - _REACH * coarser + 0.5), 0).astype(np.int64)
    stop = np.minimum(np.trunc(centre + _REACH * coarser + 0.5), length).astype(np.int64)
    place = start[:, None] + np.arange((stop - start).max())
    weight = np.where(place < stop[:, None], _bicubic((place - centre[:, None] + 0.5) / coarser), 0.0)
    weight /= weight.sum(1, keepdims=True)
    fixed = np.trunc(weight * (1 << _BITS) + np.copysign(0.5, weight)).astype(np.int64)
    near = pixels[:, np.minimum(place, length - 1)].astype(np.int64)  # (rows, count, weights, 3)
    total = np.einsum("rcwk,cw->rck", near, fixed) + (1 << (_BITS - 1))
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' filter with a = -0.5, as in Pillow."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
