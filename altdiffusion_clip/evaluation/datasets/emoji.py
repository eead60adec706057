"""The held-out renders of emoji-m9 with their captions. They are in the package."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import ADDED_LANGUAGES, LANGUAGES
from altdiffusion_clip.emoji.held_out import PER_PAIR, held_out_pictures
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.sources.pictures import Located

SPLIT = "held-out"


def read(
    folder: Path | None = None, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False
) -> RetrievalTask:
    """One picture and caption of each concept-colour pair that no training stage has seen.

    Args:
        folder: not used.
        split: "held-out", the only one.
        languages: codes; empty for emoji-m9's nine languages.
        allow_missing: leave out missing images.
    """
    del folder, split
    pictures = held_out_pictures()[::PER_PAIR]
    said = [
        Caption(code, captions(picture.concept, picture.colour, code)[0], [picture.path.stem])
        for code in (*LANGUAGES, *ADDED_LANGUAGES)
        if code in (languages or LANGUAGES)
        for picture in pictures
    ]
    images = [(picture.path.stem, Located(str(picture.path))) for picture in pictures]
    return new_task("emoji held-out", images, said, languages, allow_missing)
