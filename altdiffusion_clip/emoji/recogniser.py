"""Recognises what a drawn picture shows by comparing it with all renders. There is nothing to train or saturate."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.emoji.concepts import Ground, concepts, grounds
from altdiffusion_clip.emoji.renders import RESOLUTION, Placement, render, sprite
from altdiffusion_clip.emoji.scenes import COUNTED, KINDS, Scene, arrangements

_BARE = 0.25  # the share of a picture that even the biggest things leave bare


@torch.no_grad()
def recognise(image: Image.Image) -> Scene:
    """Finds the scene whose render has the smallest mean square error to a picture.

    The ground is the one that fits best where it is bare. Then every thing is tried in every position of every kind of
    scene: 12,000 placed things. Things do not overlap, so each position is tried separately.

    Args:
        image: of any size.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_concept, find_ground
        >>> cat, dog = find_concept("cat"), find_concept("dog")
        >>> scene = Scene("beside", (cat, dog), find_ground("meadow"))
        >>> recognise(scene.render()) == scene
        True
    """
    picture = _pixels(image.convert("RGB").resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS))
    ground, mirrored = min(
        ((ground, mirrored) for ground in grounds() for mirrored in ((False,) if ground.rgb else (False, True))),
        key=lambda seen: _misfit(picture, _bare(*seen)),
    )
    bare = _bare(ground, mirrored)
    counted = torch.tensor([thing.is_counted for thing in concepts()])
    gains: dict[Placement, Tensor] = {}

    def gain(placement: Placement) -> Tensor:
        if placement not in gains:
            gains[placement] = _gain(picture, bare, placement)
        return gains[placement]

    def tried() -> Iterator[tuple[float, str, tuple[int, ...], int]]:
        for kind in KINDS:
            for number, places in enumerate(arrangements(kind, ground.rgb is None)):
                found = torch.stack([gain(place) for place in places])
                if kind not in ("beside", "above"):
                    found = found.sum(0, keepdim=True)
                if kind in COUNTED:
                    found = found.masked_fill(~counted, -torch.inf)
                best, things = found.max(1)
                if len(set(things.tolist())) == len(things):  # two of the same thing are another kind of scene
                    yield float(best.sum()), kind, tuple(things.tolist()), number

    _, kind, things, number = max(tried())
    return Scene(kind, tuple(concepts()[index] for index in things), ground, number, mirrored)


def is_right(found: Scene, asked: Scene) -> bool:
    """Whether a picture shows the wanted scene, in any arrangement.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_concept, find_ground
        >>> cat = Scene("one", (find_concept("cat"),), find_ground("blue"))
        >>> is_right(Scene("one", cat.things, cat.ground, arrangement=4), cat)
        True
    """
    return (found.kind, found.things, found.ground) == (asked.kind, asked.things, asked.ground)


def _misfit(picture: Tensor, bare: Tensor) -> float:
    """How far a picture is from a bare ground, in the part where it is nearest."""
    return float((picture - bare).square().sum(0).flatten().kthvalue(int(_BARE * RESOLUTION**2)).values)


def _gain(picture: Tensor, bare: Tensor, placement: Placement) -> Tensor:
    """How much nearer each thing in a position brings the bare ground to a picture: float (things,)."""
    left, top = ((RESOLUTION - placement.size) // 2 + offset for offset in (placement.dx, placement.dy))
    window = (slice(None), slice(top, top + placement.size), slice(left, left + placement.size))
    colour, alpha = _sprites(placement.size)
    change = colour - alpha * bare[window]
    missing = (picture - bare)[window]
    return 2 * torch.einsum("tchw,chw->t", change, missing) - change.square().flatten(1).sum(1)


@functools.cache
def _bare(ground: Ground, mirrored: bool) -> Tensor:
    return _pixels(render(ground, mirrored=mirrored))


@functools.cache
def _sprites(size: int) -> tuple[Tensor, Tensor]:
    """All things at one size: premultiplied colours (things, 3, size, size), and opacity (things, 1, size, size)."""
    canvas = np.zeros((len(concepts()), size, size, 4), np.float32)
    for row, thing in zip(canvas, concepts(), strict=True):
        pixels = np.asarray(sprite(thing.code, size), np.float32) / 255
        height, width = pixels.shape[:2]
        # rounds as `render` does
        left, top = ((RESOLUTION - side) // 2 - (RESOLUTION - size) // 2 for side in (width, height))
        row[top : top + height, left : left + width] = pixels
    whole = torch.from_numpy(canvas).permute(0, 3, 1, 2)
    colour, alpha = whole[:, :3], whole[:, 3:]
    return (colour * alpha).contiguous(), alpha.contiguous()


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
