"""What emoji-m18 knows: things with their names in eighteen languages, and the grounds that they are drawn on.

The things are listed in `things.json`, by their code points, and those of them that the UNet draws in `drawn.json`. The
text encoder and the scorer know all of them.
"""

import functools
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from altdiffusion_clip.emoji.languages import LANGUAGES, language_of


@dataclass(frozen=True)
class Concept:
    """Something that emoji-m18 can draw.

    Attributes:
        index: position in `concepts()`, stable for one set of weights.
        code: code points of its emoji in hex, joined by "-", which is also the name of its sprite.
        names: its everyday name by language code.
        is_counted: whether there are words for two or three of it, a small and a big one.
        is_drawn: whether the UNet has learned to draw it.
    """

    index: int
    code: str
    names: Mapping[str, str]
    is_counted: bool
    is_drawn: bool = True

    @property
    def emoji(self) -> str:
        """The character."""
        return "".join(chr(int(point, 16)) for point in self.code.split("-"))

    def __str__(self) -> str:
        return f"{self.emoji} {self.names['en']}"

    def __hash__(self) -> int:
        return self.index


@dataclass(frozen=True)
class Ground:
    """What a picture is painted on before anything else.

    Attributes:
        index: position in `grounds()`.
        name: its English name, which is also its identifier.
        rgb: red, green and blue of a plain ground, 0 to 255; None if it is painted.
    """

    index: int
    name: str
    rgb: tuple[int, int, int] | None = None

    def __hash__(self) -> int:
        return self.index


_COLOURS = {
    "white": (255, 255, 255),
    "black": (28, 28, 30),
    "grey": (158, 158, 163),
    "red": (222, 60, 54),
    "orange": (250, 140, 40),
    "yellow": (250, 205, 50),
    "green": (32, 160, 90),
    "turquoise": (40, 196, 190),
    "blue": (66, 133, 244),
    "purple": (165, 75, 190),
    "pink": (246, 150, 185),
    "brown": (125, 88, 72),
}
_PAINTED = ("meadow", "sea", "night sky", "snow", "desert", "sunset")
_GROUNDS = (
    *(Ground(index, name, rgb) for index, (name, rgb) in enumerate(_COLOURS.items())),
    *(Ground(len(_COLOURS) + index, name) for index, name in enumerate(_PAINTED)),
)


def grounds() -> tuple[Ground, ...]:
    """Lists all grounds: the plain colours, then the painted ones.

    Example:
        >>> [ground.name for ground in grounds()][-3:]
        ['snow', 'desert', 'sunset']
    """
    return _GROUNDS


def colours() -> tuple[Ground, ...]:
    """Lists the plain grounds.

    Example:
        >>> [colour.name for colour in colours()][:3]
        ['white', 'black', 'grey']
    """
    return _GROUNDS[: len(_COLOURS)]


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Lists what emoji-m18 knows.

    Example:
        >>> cat = concepts()[0]
        >>> cat.emoji, cat.names["en"], cat.names["zh"]
        ('🐱', 'cat', '猫')
    """
    codes, drawn = (
        json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
        for name in ("things.json", "drawn.json")
    )
    languages = {code: language_of(code) for code in LANGUAGES}
    return tuple(
        Concept(
            index,
            code,
            MappingProxyType({name: language.things[code].names[0][0] for name, language in languages.items()}),
            bool(languages["en"].things[code].two),
            code in drawn,
        )
        for index, code in enumerate(codes)
    )


def drawn_concepts() -> tuple[Concept, ...]:
    """Lists what the UNet draws.

    Example:
        >>> len(drawn_concepts())
        200
    """
    return tuple(concept for concept in concepts() if concept.is_drawn)


def find_concept(name: str, language: str = "en") -> Concept:
    """Finds a concept by its name.

    Raises:
        KeyError: no concept has that name in that language.

    Example:
        >>> find_concept("狗", "zh").emoji
        '🐶'
    """
    for concept in concepts():
        if concept.names[language] == name:
            return concept
    raise KeyError(f"emoji-m18 knows no {name!r} in {language!r}; concepts() lists what it knows")


def find_ground(name: str) -> Ground:
    """Finds a ground by its English name.

    Raises:
        KeyError: there is no such ground.

    Example:
        >>> find_ground("blue").rgb
        (66, 133, 244)
    """
    for ground in grounds():
        if ground.name == name:
            return ground
    raise KeyError(f"no ground {name!r}; there are {', '.join(g.name for g in grounds())}")


def is_held_out(concept: Concept, ground: Ground) -> bool:
    """Whether no training stage shows or names this concept on this ground.

    Each concept is kept from three of the eighteen grounds, two plain and one painted, and each ground from a sixth
    of the concepts, so that both halves of every unseen pair are known.

    Example:
        >>> sum(is_held_out(concepts()[0], ground) for ground in grounds())
        3
    """
    return (ground.index - 5 * concept.index - 1) % 6 == 0


def plain_pairs(unseen: bool) -> list[tuple[Concept, Ground]]:
    """Things that the UNet draws, each on the plain grounds that it is held out from, or on all others.

    Args:
        unseen: the held-out ones.

    Returns:
        All of them, in a fixed random order.

    Example:
        >>> len(plain_pairs(unseen=True)), len(plain_pairs(unseen=False))
        (400, 2000)
    """
    pairs = [(thing, ground) for thing in drawn_concepts() for ground in colours()]
    pairs = [pair for pair in pairs if is_held_out(*pair) == unseen]
    random.Random(0).shuffle(pairs)
    return pairs


def is_pair_held_out(first: Concept, second: Concept) -> bool:
    """Whether no training stage shows or names these two concepts together: one pair in five, in either order.

    Example:
        >>> cat, dog, frog = concepts()[0], concepts()[1], concepts()[4]
        >>> is_pair_held_out(cat, dog), is_pair_held_out(dog, frog), is_pair_held_out(frog, dog)
        (False, True, True)
    """
    return (first.index + second.index) % 5 == 0
