"""The picture to change, and where."""

import base64
import binascii
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from altdiffusion_clip.demo.texts import Refusal

_LEAST_ALPHA = 16
_MASK_SIDE = 4096
_HEAD = "data:image/png;base64,"


@dataclass(frozen=True)
class Source:
    """A picture at a size that the model can draw.

    Attributes:
        image: RGB.
        mask: "L", the same size, 255 where it is redrawn; None for the whole picture.
        strength: in (0, 1]; 1 keeps nothing.
    """

    image: Image.Image
    mask: Image.Image | None
    strength: float

    def keep_the_rest(self, drawn: Image.Image) -> Image.Image:
        """Restores what was not to be changed, because decoding alters all pixels a little."""
        if self.mask is None:
            return drawn
        return Image.composite(drawn, self.image, self.mask)


def fitted(image: Image.Image, paint: Image.Image | None, strength: float, side: int, multiple: int) -> Source:
    """Fits a picture and the paint on it to a size that a model can draw.

    It is scaled to the model's area, keeping its proportions, and cropped to multiples at the edges.

    Args:
        image: any picture.
        paint: RGBA, with the picture's proportions; without paint the whole picture is changed.
        strength: see `Source`.
        side: of the model's own pictures, in pixels.
        multiple: of heights and widths.

    Example:
        >>> fitted(Image.new("RGB", (800, 400)), None, 0.5, side=512, multiple=64).image.size
        (704, 384)
    """
    scale = side / (image.width * image.height) ** 0.5
    width, height = (max(multiple, round(length * scale / multiple) * multiple) for length in image.size)
    mask = None
    if paint is not None:
        alpha = paint.convert("RGBA").getchannel("A").point(lambda value: 255 if value >= _LEAST_ALPHA else 0)
        mask = ImageOps.fit(alpha, (width, height), Image.Resampling.BOX).point(lambda value: 255 if value > 127 else 0)
        mask = mask if mask.getbbox() else None
    return Source(ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS), mask, strength)


def paint_of(address: str | None) -> Image.Image | None:
    """Decodes the picture in a data URL, which is how browsers send paint; None if it is empty.

    Raises:
        Refusal: it is not a PNG, or too large.

    Example:
        >>> paint_of("") is None
        True
    """
    if not address:
        return None
    try:
        if not address.startswith(_HEAD):
            raise ValueError("not a data URL of a PNG")
        paint = Image.open(io.BytesIO(base64.b64decode(address.removeprefix(_HEAD), validate=True)), formats=["PNG"])
        if max(paint.size) > _MASK_SIDE:
            raise Refusal("large_upload")
        paint.load()
    except (OSError, ValueError, SyntaxError, AttributeError, binascii.Error, Image.DecompressionBombError):
        raise Refusal("no_picture") from None
    return paint
