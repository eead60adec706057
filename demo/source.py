"""The picture that is changed, and where."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageOps

_LEAST_ALPHA = 16


@dataclass(frozen=True)
class Source:
    """A picture at the size that the model draws.

    Attributes:
        image: RGB.
        mask: "L", of the same size, 255 where it is drawn anew; None for the whole picture.
        strength: in (0, 1]; 1 keeps nothing of what was there.
    """

    image: Image.Image
    mask: Image.Image | None
    strength: float

    def keep_the_rest(self, drawn: Image.Image) -> Image.Image:
        """Puts back what was not to be changed. (Decoding alters all pixels a little.)"""
        if self.mask is None:
            return drawn
        return Image.composite(drawn, self.image, self.mask)


def fitted(image: Image.Image, layers: Sequence[Image.Image], strength: float, side: int, multiple: int) -> Source:
    """A picture and what was painted on it, at the size that a model draws.

    It is scaled to the model's area in its own proportions, and cut to multiples at its edges.

    Args:
        image: any.
        layers: of paint, RGBA, each of the picture's size; without paint the whole picture is changed.
        strength: see `Source`.
        side: of the model's square pictures, in pixels.
        multiple: of heights and widths.

    Example:
        >>> fitted(Image.new("RGB", (800, 400)), [], 0.5, side=512, multiple=64).image.size
        (704, 384)
    """
    scale = side / (image.width * image.height) ** 0.5
    width, height = (max(multiple, round(length * scale / multiple) * multiple) for length in image.size)
    mask = None
    for layer in layers:
        paint = layer.convert("RGBA").getchannel("A").point(lambda alpha: 255 if alpha >= _LEAST_ALPHA else 0)
        paint = paint.resize(image.size) if paint.size != image.size else paint
        mask = paint if mask is None else ImageChops.lighter(mask, paint)
    if mask is not None:
        mask = ImageOps.fit(mask, (width, height), Image.Resampling.BOX).point(lambda value: 255 if value > 127 else 0)
        mask = mask if mask.getbbox() else None
    return Source(ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS), mask, strength)
