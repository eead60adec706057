"""Renders things as Fluent 3D emoji on plain and painted grounds, with Pillow."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from altdiffusion_clip.emoji.concepts import Concept, Ground

RESOLUTION = 128
"""Side of every picture, in pixels."""

_FINE = 4  # shapes are painted larger by this factor and then shrunk, for smooth edges


@dataclass(frozen=True)
class Placement:
    """The placement of a thing: longer side of its sprite, and offset of its centre from the picture's, in pixels."""

    size: int = 84
    dx: int = 0
    dy: int = 0


@functools.cache
def sprite(code: str, size: int) -> Image.Image:
    """The sprite of a thing: RGBA, with a longer side of `size` pixels. Cached.

    Example:
        >>> sprite("1f431", 44).mode
        'RGBA'
    """
    path = resources.files(__package__).joinpath("sprites", f"{code}.webp")
    with path.open("rb") as file:
        whole = Image.open(file).convert("RGBA")
    scale = size / max(whole.size)
    width, height = (max(1, round(side * scale)) for side in whole.size)
    return whole.resize((width, height), Image.Resampling.LANCZOS)


def render(ground: Ground, *things: tuple[Concept, Placement], mirrored: bool = False) -> Image.Image:
    """Draws things on a ground.

    Args:
        ground: plain or painted.
        *things: things with their placements, from back to front.
        mirrored: mirror the painted ground, but not the things.

    Returns:
        An RGB picture of `RESOLUTION` x `RESOLUTION` pixels.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_concept, find_ground
        >>> render(find_ground("meadow"), (find_concept("cat"), Placement(dy=8))).size
        (128, 128)
    """
    picture = _painted(ground, mirrored).copy()
    for concept, placement in things:
        thing = sprite(concept.code, placement.size)
        left = (RESOLUTION - thing.width) // 2 + placement.dx
        top = (RESOLUTION - thing.height) // 2 + placement.dy
        picture.paste(thing, (left, top), thing)
    return picture


@functools.cache
def _painted(ground: Ground, mirrored: bool) -> Image.Image:
    if ground.rgb is not None:
        return Image.new("RGB", (RESOLUTION, RESOLUTION), ground.rgb)
    picture = _PAINTERS[ground.name]().resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


Rgb = tuple[int, int, int]
_SIDE = RESOLUTION * _FINE


def _gradient(*stops: Rgb) -> Image.Image:
    """A vertical gradient through evenly spaced colours."""
    place = np.linspace(0, len(stops) - 1, _SIDE)
    columns = [np.interp(place, range(len(stops)), [stop[channel] for stop in stops]) for channel in range(3)]
    column = np.stack(columns, axis=1)[:, None, :].repeat(_SIDE, axis=1)
    return Image.fromarray(column.round().astype(np.uint8))


def _ellipse(picture: Image.Image, x: float, y: float, width: float, height: float, colour: Rgb) -> None:
    """An ellipse around a centre. All lengths are relative to the picture's side."""
    box = [_SIDE * value for value in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
    ImageDraw.Draw(picture).ellipse(box, fill=colour)


def _dots(picture: Image.Image, count: int, lowest: float, radius: float, colour: Rgb, seed: int) -> None:
    """Soft dots above a height, always in the same well-spaced positions."""
    generator = np.random.default_rng(seed)
    layer = Image.new("L", picture.size)
    placed: list[tuple[float, float]] = []
    while len(placed) < count:
        x, y = generator.uniform(0.03, 0.97), generator.uniform(0.03, lowest)
        if all((x - a) ** 2 + (y - b) ** 2 > 0.09**2 for a, b in placed):
            placed.append((x, y))
            size = radius * _SIDE * (1.0 if len(placed) % 3 else 1.5)
            centre = (x * _SIDE, y * _SIDE)
            ImageDraw.Draw(layer).ellipse(
                [centre[0] - size, centre[1] - size, centre[0] + size, centre[1] + size], fill=255
            )
    picture.paste(colour, mask=layer.filter(ImageFilter.GaussianBlur(_FINE / 2)))


def _meadow() -> Image.Image:
    picture = _gradient((126, 200, 252), (176, 224, 255), (214, 240, 255))
    _ellipse(picture, 0.15, 1.02, 1.1, 0.72, (112, 190, 84))
    _ellipse(picture, 0.82, 1.08, 1.2, 0.76, (92, 172, 72))
    return picture


def _sea() -> Image.Image:
    picture = _gradient((150, 214, 250), (196, 232, 252), (222, 243, 253))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 0.56 * _SIDE, _SIDE, _SIDE], fill=(44, 132, 196))
    for row, height in enumerate((0.64, 0.76, 0.88)):
        for number in range(-1, 5):
            left = (number * 0.25 + (0.125 if row % 2 else 0.0)) * _SIDE
            box = [left, height * _SIDE, left + 0.17 * _SIDE, (height + 0.08) * _SIDE]
            draw.arc(box, 200, 340, fill=(128, 194, 232), width=round(0.018 * _SIDE))
    return picture


def _night_sky() -> Image.Image:
    picture = _gradient((14, 16, 52), (32, 34, 88), (58, 50, 124))
    _dots(picture, 22, 0.97, 0.009, (255, 248, 214), seed=5)
    return picture


def _snow() -> Image.Image:
    picture = _gradient((150, 178, 214), (182, 204, 230), (208, 222, 240))
    _ellipse(picture, 0.8, 1.05, 1.3, 0.66, (226, 236, 248))
    _ellipse(picture, 0.2, 1.1, 1.3, 0.7, (248, 251, 255))
    _dots(picture, 24, 0.72, 0.011, (255, 255, 255), seed=2)
    return picture


def _desert() -> Image.Image:
    picture = _gradient((255, 204, 122), (255, 222, 158), (255, 236, 192))
    _ellipse(picture, 0.2, 1.06, 1.3, 0.72, (226, 170, 98))
    _ellipse(picture, 0.88, 1.08, 1.1, 0.66, (206, 148, 82))
    return picture


def _sunset() -> Image.Image:
    picture = _gradient((92, 58, 134), (188, 92, 128), (250, 146, 96), (255, 190, 104))
    _ellipse(picture, 0.5, 0.72, 0.4, 0.4, (255, 224, 130))
    ImageDraw.Draw(picture).rectangle([0, 0.72 * _SIDE, _SIDE, _SIDE], fill=(66, 46, 92))
    return picture


_PAINTERS: dict[str, Callable[[], Image.Image]] = {
    "meadow": _meadow,
    "sea": _sea,
    "night sky": _night_sky,
    "snow": _snow,
    "desert": _desert,
    "sunset": _sunset,
}
"""A painter for each painted ground."""
