"""Pictures of the concepts: one colour emoji on a plain background.

Only training draws pictures. Everything else reads the held-out pictures in the package, so the font (Noto Color
Emoji, SIL Open Font License 1.1) is needed only for retraining.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from altdiffusion_clip.emoji.concepts import Colour, Concept

RESOLUTION = 64
"""Side of every picture, in pixels."""

_FONT_PLACES = (
    "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
    "/usr/share/fonts/google-noto-color-emoji-fonts/NotoColorEmoji.ttf",
    "/usr/share/fonts/noto/NotoColorEmoji.ttf",
)
_STRIKE = 109  # the only bitmap size in the font, in pixels per em


@dataclass(frozen=True)
class Placement:
    """The position of the emoji: side of its square and offset from the centre, in pixels."""

    size: int = 50
    dx: int = 0
    dy: int = 0


TRAIN_PLACEMENTS = tuple(
    Placement(size, dx, dy) for size in range(46, 56, 2) for dx in range(-2, 3, 2) for dy in range(-2, 3, 2)
)
"""Even sizes and even offsets."""

HELD_OUT_PLACEMENTS = tuple(
    Placement(size, dx, dy) for size in range(47, 54, 2) for dx in range(-3, 4, 2) for dy in range(-3, 4, 2)
)
"""Odd sizes and odd offsets, which no training picture has."""

SCENE_PLACEMENTS = tuple(Placement(size, dx, dy) for size in (26, 28, 30) for dx in (-1, 0, 1) for dy in (-4, 0, 4))
"""Placements in each half of a picture of two things."""


def font_path() -> Path:
    """Finds Noto Color Emoji: ``$ALTDIFFUSION_EMOJI_FONT``, or where Linux distributions put it.

    Raises:
        FileNotFoundError: it is not there. The message says what to install.
    """
    named = os.environ.get("ALTDIFFUSION_EMOJI_FONT")
    for place in (named,) if named else _FONT_PLACES:
        if Path(place).is_file():
            return Path(place)
    raise FileNotFoundError(
        "Noto Color Emoji is needed to draw training pictures: install the package fonts-noto-color-emoji, "
        "or set ALTDIFFUSION_EMOJI_FONT to NotoColorEmoji.ttf"
    )


@functools.lru_cache(maxsize=2048)
def _glyph(character: str, size: int) -> Image.Image:
    font = ImageFont.truetype(str(font_path()), _STRIKE)
    canvas = Image.new("RGBA", (2 * _STRIKE, 2 * _STRIKE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((_STRIKE // 2, _STRIKE // 2), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"{font_path()} has no picture for {character!r}")
    glyph = canvas.crop(box)
    scale = size / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    return glyph.resize((width, height), Image.Resampling.LANCZOS)


def _outlined(glyph: Image.Image) -> Image.Image:
    """Recolours an emoji in shades of orange, with a dark outline of two pixels, as another style."""
    glyph = ImageOps.expand(glyph, 2)
    shape = glyph.getchannel("A")
    line = shape.filter(ImageFilter.MaxFilter(5))
    shades = ImageOps.colorize(ImageOps.grayscale(glyph.convert("RGB")), (120, 40, 0), (255, 225, 170))
    shades.putalpha(shape)
    drawn = Image.new("RGBA", glyph.size, (20, 20, 60, 0))
    drawn.putalpha(line)
    drawn.alpha_composite(shades)
    return drawn


def render(concept: Concept, colour: Colour, placement: Placement | None = None, style: str = "plain") -> Image.Image:
    """Draws a concept on a background.

    Args:
        concept: what to draw.
        colour: the background.
        placement: size and position of the emoji; by default centred, with 50 of 64 pixels.
        style: "plain", or "outlined" for shades of orange with a dark outline.

    Returns:
        An RGB picture of `RESOLUTION` x `RESOLUTION` pixels.

    Raises:
        FileNotFoundError: Noto Color Emoji is not installed.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_colour, find_concept
        >>> render(find_concept("cat"), find_colour("blue")).size  # doctest: +SKIP
        (64, 64)
    """
    picture = Image.new("RGB", (RESOLUTION, RESOLUTION), colour.rgb)
    _paste(picture, concept, placement or Placement(), style)
    return picture


def render_scene(
    left: Concept,
    right: Concept,
    colour: Colour,
    placements: tuple[Placement, Placement] | None = None,
    style: str = "plain",
) -> Image.Image:
    """Draws two concepts beside each other on a background.

    Args:
        left: what is on the left.
        right: what is on the right.
        colour: the background.
        placements: of the left and the right emoji, with offsets from the middle of the half; by default 28 of 64
            pixels.
        style: as in `render`.

    Returns:
        An RGB picture of `RESOLUTION` x `RESOLUTION` pixels.

    Raises:
        FileNotFoundError: Noto Color Emoji is not installed.
    """
    picture = Image.new("RGB", (RESOLUTION, RESOLUTION), colour.rgb)
    for concept, placement, centre in zip(
        (left, right), placements or (Placement(28), Placement(28)), (-RESOLUTION // 4, RESOLUTION // 4), strict=True
    ):
        _paste(picture, concept, Placement(placement.size, placement.dx + centre, placement.dy), style)
    return picture


def _paste(picture: Image.Image, concept: Concept, placement: Placement, style: str) -> None:
    glyph = _glyph(concept.emoji, placement.size)
    if style == "outlined":
        glyph = _outlined(glyph)
    left = (RESOLUTION - glyph.width) // 2 + placement.dx
    top = (RESOLUTION - glyph.height) // 2 + placement.dy
    picture.paste(glyph, (left, top), glyph)
