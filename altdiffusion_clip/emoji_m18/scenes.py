"""What pictures show: one thing, small or big; two things beside or above each other; two or three of a thing."""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from altdiffusion_clip.emoji_m18.concepts import Concept, Ground, concepts, grounds, is_held_out, is_pair_held_out
from altdiffusion_clip.emoji_m18.renders import Placement, render

Arrangement = tuple[Placement, ...]
KINDS = ("one", "small", "big", "beside", "above", "two", "three")
"""Kinds of scenes. "beside" and "above" show two things, "two" and "three" so many of one thing."""

COUNTED = ("small", "big", "two", "three")
"""Kinds that only things which can be counted are shown in."""


@functools.cache
def arrangements(kind: str, is_painted: bool) -> tuple[Arrangement, ...]:
    """All the ways in which a kind of scene is laid out on a plain or a painted ground.

    They are few, for a UNet learns each size of a thing anew. Offsets are multiples of the autoencoder's stride, so
    that a thing moved has the same latents, moved; and most of twice that, since the UNet has a level of half the
    resolution. On a painted ground things stand lower, since the sky is above.
    """
    if kind == "one":
        return tuple((Placement(88, dx, 16 if is_painted else 0),) for dx in (-16, 0, 16))
    if kind == "small":
        return tuple((Placement(52, dx, 32 if is_painted else 0),) for dx in (-32, 0, 32))
    if kind == "big":
        return ((Placement(112),),)
    if kind == "above":
        return ((Placement(52, 0, -32), Placement(52, 0, 32)),)
    size, places = (40, (-40, 0, 40)) if kind == "three" else (52, (-32, 32))
    return (tuple(Placement(size, dx, 16 if is_painted else 0) for dx in places),)


@dataclass(frozen=True)
class Scene:
    """What one picture shows.

    Attributes:
        kind: of `KINDS`.
        things: the left or upper one first; one thing but for "beside" and "above".
        ground: behind them.
        arrangement: an index into `arrangements`.
        mirrored: a painted ground is seen from the other side.
    """

    kind: str
    things: tuple[Concept, ...]
    ground: Ground
    arrangement: int = 0
    mirrored: bool = False

    @property
    def is_held_out(self) -> bool:
        """Whether a thing is kept from this ground, or these two from each other, in all training."""
        return any(is_held_out(thing, self.ground) for thing in self.things) or (
            len(self.things) == 2 and is_pair_held_out(*self.things)
        )

    def render(self) -> Image.Image:
        """Draws it."""
        placements = arrangements(self.kind, self.ground.rgb is None)[self.arrangement]
        things = self.things if len(self.things) == len(placements) else self.things * len(placements)
        return render(self.ground, *zip(things, placements, strict=True), mirrored=self.mirrored)

    def variants(self) -> "Iterator[Scene]":
        """The same scene in all its arrangements, from both sides: all the true renders of one prompt."""
        is_painted = self.ground.rgb is None
        for number in range(len(arrangements(self.kind, is_painted))):
            for mirrored in (False, True) if is_painted else (False,):
                yield Scene(self.kind, self.things, self.ground, number, mirrored)


def draw_scene(kind: str, generator: random.Random, things: Sequence[Concept], unseen: bool = False) -> Scene:
    """Draws a scene of a kind at random.

    Args:
        kind: of `KINDS`.
        generator: of random numbers.
        things: to choose from; at least two, and one that can be counted.
        unseen: one that all training is kept from, and not one that may be shown.

    Returns:
        The scene. Of an unseen pair both things are known on its ground, and only their being together is new.
    """
    if kind in COUNTED:
        things = [thing for thing in things if thing.is_counted]
    while True:
        shown = tuple(generator.sample(things, 2 if kind in ("beside", "above") else 1))
        ground = generator.choice(grounds())
        is_painted = ground.rgb is None
        scene = Scene(
            kind,
            shown,
            ground,
            generator.randrange(len(arrangements(kind, is_painted))),
            is_painted and generator.random() < 0.5,
        )
        if len(shown) == 2 and any(is_held_out(thing, ground) for thing in shown):
            continue
        if scene.is_held_out == unseen:
            return scene


def draw_scenes(
    count: int, seed: int, shares: dict[str, float], things: Sequence[Concept] | None = None, unseen: bool = False
) -> list[Scene]:
    """Draws scenes at random, always the same ones for the same arguments.

    Args:
        count: how many.
        seed: of the random numbers.
        shares: of the kinds; any sum.
        things: to choose from; all concepts if not given.
        unseen: as for `draw_scene`.

    Example:
        >>> scenes = draw_scenes(100, seed=0, shares={"one": 3, "beside": 1})
        >>> any(scene.is_held_out for scene in scenes)
        False
    """
    generator = random.Random(seed)
    kinds = generator.choices(list(shares), list(shares.values()), k=count)
    return [draw_scene(kind, generator, things or concepts(), unseen) for kind in kinds]
