"""Scenes: one thing, small or big; two things beside or above each other; two or three of a thing."""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from altdiffusion_clip.emoji.concepts import Concept, Ground, concepts, grounds, is_held_out, is_pair_held_out
from altdiffusion_clip.emoji.renders import Placement, render

Arrangement = tuple[Placement, ...]
KINDS = ("one", "small", "big", "beside", "above", "two", "three")
"""Kinds of scenes. "beside" and "above" show two things; "two" and "three" show several of one thing."""

COUNTED = ("small", "big", "two", "three")
"""Kinds of scenes that need a countable thing."""


@functools.cache
def arrangements(kind: str, is_painted: bool) -> tuple[Arrangement, ...]:
    """All arrangements of a kind of scene on a plain or painted ground.

    There are few, because a UNet has to learn each size of a thing separately. Offsets are multiples of the
    autoencoder's stride, so that moving a thing just moves its latents; most are multiples of twice the stride, for the
    UNet's half-resolution level. On a painted ground things stand lower, below the sky.
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
    """The contents of a picture.

    Attributes:
        kind: of `KINDS`.
        things: the left or upper one first; only "beside" and "above" have two.
        ground: behind them.
        arrangement: an index into `arrangements`.
        mirrored: whether the painted ground is mirrored.
    """

    kind: str
    things: tuple[Concept, ...]
    ground: Ground
    arrangement: int = 0
    mirrored: bool = False

    @property
    def is_held_out(self) -> bool:
        """Whether this thing and ground, or this pair of things, are held out from all training."""
        return any(is_held_out(thing, self.ground) for thing in self.things) or (
            len(self.things) == 2 and is_pair_held_out(*self.things)
        )

    def render(self) -> Image.Image:
        """Renders the scene."""
        placements = arrangements(self.kind, self.ground.rgb is None)[self.arrangement]
        things = self.things if len(self.things) == len(placements) else self.things * len(placements)
        return render(self.ground, *zip(things, placements, strict=True), mirrored=self.mirrored)

    def variants(self) -> "Iterator[Scene]":
        """The scene in all arrangements, mirrored and not: all true renders of one prompt."""
        is_painted = self.ground.rgb is None
        for number in range(len(arrangements(self.kind, is_painted))):
            for mirrored in (False, True) if is_painted else (False,):
                yield Scene(self.kind, self.things, self.ground, number, mirrored)


def draw_scene(kind: str, generator: random.Random, things: Sequence[Concept], unseen: bool = False) -> Scene:
    """Draws a random scene of a kind.

    Args:
        kind: of `KINDS`.
        generator: of the random numbers.
        things: to choose from; at least two, and at least one countable.
        unseen: draw a held-out scene, instead of one that training may show.

    Returns:
        The scene. For an unseen pair, both things are known on its ground, and only the combination is new.
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
    """Draws random scenes, always the same ones for the same arguments.

    Args:
        count: how many.
        seed: of the random numbers.
        shares: of the kinds; they need not sum to 1.
        things: to choose from; all concepts by default.
        unseen: as in `draw_scene`.

    Example:
        >>> scenes = draw_scenes(100, seed=0, shares={"one": 3, "beside": 1})
        >>> any(scene.is_held_out for scene in scenes)
        False
    """
    generator = random.Random(seed)
    kinds = generator.choices(list(shares), list(shares.values()), k=count)
    return [draw_scene(kind, generator, things or concepts(), unseen) for kind in kinds]
