"""Pictures with a meaning for tests of scoring, ranking and training: renders that emoji-m18 has never seen."""

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from altdiffusion_clip.emoji.concepts import Concept, Ground, colours, drawn_concepts, is_held_out
from altdiffusion_clip.emoji.scenes import Scene
from altdiffusion_clip.files import atomic_path

PER_PAIR = 2
THINGS = 90

_PLACE = "ALTDIFFUSION_TEST_PICTURES"
if _PLACE not in os.environ:  # the workers of pytest-xdist, and the processes that tests start, share the folder
    os.environ[_PLACE] = tempfile.mkdtemp(prefix="altdiffusion-pictures-")
    atexit.register(shutil.rmtree, os.environ[_PLACE], ignore_errors=True)


@dataclass(frozen=True)
class HeldOutPicture:
    """A thing on a plain ground that is held out for it, on the left or on the right."""

    concept: Concept
    colour: Ground
    number: int

    @property
    def path(self) -> Path:
        """Of the PNG. It is rendered when it is first asked for."""
        name = f"{self.concept.index:02d}-{self.concept.names['en'].replace(' ', '-')}-{self.colour.name}-{self.number}"
        path = Path(os.environ[_PLACE]) / f"{name}.png"
        if not path.exists():
            with atomic_path(path) as temporary:
                Scene("one", (self.concept,), self.colour, 2 * self.number).render().save(temporary, "png")
        return path


def held_out_pictures() -> list[HeldOutPicture]:
    """`PER_PAIR` pictures of each of the first things on both plain grounds that are held out for it."""
    return [
        HeldOutPicture(concept, colour, number)
        for concept in drawn_concepts()[:THINGS]
        for colour in colours()
        if is_held_out(concept, colour)
        for number in range(PER_PAIR)
    ]
