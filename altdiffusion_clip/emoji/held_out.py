"""Pictures that no training stage has seen: other concept-colour pairs, sizes and positions.

They ship as files, so tests and the evaluation need no font.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from altdiffusion_clip.emoji.concepts import Colour, Concept, colours, concepts, is_held_out
from altdiffusion_clip.emoji.renders import HELD_OUT_PLACEMENTS, render
from altdiffusion_clip.files import atomic_path

FOLDER = Path(__file__).parent / "held_out"
PER_PAIR = 2


@dataclass(frozen=True)
class HeldOutPicture:
    """A held-out picture and what it shows."""

    path: Path
    concept: Concept
    colour: Colour


def held_out_pictures() -> list[HeldOutPicture]:
    """Lists the held-out pictures: `PER_PAIR` for each of the two unseen colours of each concept.

    Example:
        >>> pictures = held_out_pictures()
        >>> len(pictures) == len(concepts()) * 2 * PER_PAIR
        True
        >>> all(picture.path.is_file() for picture in pictures)
        True
    """
    return [
        HeldOutPicture(
            FOLDER / f"{concept.index:02d}-{concept.names['en'].replace(' ', '-')}-{colour.name}-{number}.png",
            concept,
            colour,
        )
        for concept in concepts()
        for colour in colours()
        if is_held_out(concept, colour)
        for number in range(PER_PAIR)
    ]


def write_held_out() -> None:
    """Draws the held-out pictures. Needs the font."""
    generator = random.Random(0)
    for picture in held_out_pictures():
        with atomic_path(picture.path) as path:
            render(picture.concept, picture.colour, generator.choice(HELD_OUT_PLACEMENTS)).save(path, optimize=True)
