"""What emoji-m9 knows: concepts with a name in each of nine languages, and background colours.

The names are the CLDR short names in the PyPI package ``emoji`` (Unicode License v3). They are frozen in
``concepts.json``, because the weights learned these words and not those of a later CLDR release.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

LANGUAGES = ("en", "zh", "es", "fr", "ru", "ja", "ko", "ar", "it")
"""ISO 639-1 codes of AltDiffusion-m9's nine languages, in the order of its model card."""

ADDED_LANGUAGES = ("de",)
"""Languages that emoji-m9 does not know but can learn: see `altdiffusion train add-language`."""


@dataclass(frozen=True)
class Concept:
    """Something that emoji-m9 can draw.

    Attributes:
        index: position in `concepts()`, fixed for one set of weights.
        emoji: the character that the picture is rendered from.
        names: CLDR short name by language code, of `LANGUAGES` and `ADDED_LANGUAGES`.
    """

    index: int
    emoji: str
    names: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.emoji} {self.names['en']}"

    def __hash__(self) -> int:
        return hash(self.emoji)


@dataclass(frozen=True)
class Colour:
    """A background colour.

    Attributes:
        name: its English name, which is also its identifier.
        rgb: red, green and blue, 0 to 255.
    """

    name: str
    rgb: tuple[int, int, int]


_COLOURS = (
    Colour("white", (250, 250, 250)),
    Colour("black", (15, 15, 15)),
    Colour("red", (215, 40, 45)),
    Colour("yellow", (250, 220, 50)),
    Colour("green", (50, 160, 70)),
    Colour("blue", (45, 95, 215)),
    Colour("purple", (130, 60, 170)),
    Colour("pink", (250, 150, 195)),
)


def colours() -> tuple[Colour, ...]:
    """Lists the background colours.

    Example:
        >>> [colour.name for colour in colours()][:3]
        ['white', 'black', 'red']
    """
    return _COLOURS


@functools.cache
def concepts() -> tuple[Concept, ...]:
    """Lists what emoji-m9 knows.

    Example:
        >>> cat = concepts()[0]
        >>> cat.emoji, cat.names["en"], cat.names["zh"]
        ('🐈', 'cat', '猫')
    """
    rows = json.loads(resources.files(__package__).joinpath("concepts.json").read_text(encoding="utf-8"))
    return tuple(Concept(i, row["emoji"], MappingProxyType(row["names"])) for i, row in enumerate(rows))


def find_concept(name: str, language: str = "en") -> Concept:
    """Finds a concept by its name.

    Raises:
        KeyError: no concept has that name in that language.

    Example:
        >>> find_concept("狗", "zh").emoji
        '🐕'
    """
    for concept in concepts():
        if concept.names[language] == name:
            return concept
    raise KeyError(f"emoji-m9 knows no {name!r} in {language!r}; concepts() lists what it knows")


def find_colour(name: str) -> Colour:
    """Finds a background colour by its English name.

    Raises:
        KeyError: there is no such colour.

    Example:
        >>> find_colour("blue").rgb
        (45, 95, 215)
    """
    for colour in colours():
        if colour.name == name:
            return colour
    raise KeyError(f"no background colour {name!r}; there are {', '.join(c.name for c in colours())}")


def is_held_out(concept: Concept, colour: Colour) -> bool:
    """Whether this pair is held out from every training stage.

    Two of the eight colours are held out for each concept, and each colour for a quarter of the concepts, so both
    halves of every unseen pair are known.

    Example:
        >>> sum(is_held_out(concepts()[0], colour) for colour in colours())
        2
    """
    return (colours().index(colour) - 3 * concept.index - 1) % 4 == 0


def is_pair_held_out(first: Concept, second: Concept) -> bool:
    """Whether pictures of these two concepts together are held out from every training stage.

    One pair in five is, whichever side each concept is on.

    Example:
        >>> cat, dog, pig = concepts()[0], concepts()[1], concepts()[4]
        >>> is_pair_held_out(cat, dog), is_pair_held_out(dog, pig), is_pair_held_out(pig, dog)
        (False, True, True)
    """
    return (first.index + second.index) % 5 == 0
