"""Unseen things on plain grounds, rendered, with their captions in eighteen languages."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.scenes import Scene
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.sources.places import ONCE
from altdiffusion_clip.sources.retries import Retries

SPLIT = "held-out"


@dataclass(frozen=True)
class Rendered:
    """A render, as a PNG in memory."""

    name: str
    data: bytes

    def is_there(self) -> bool:
        """Always."""
        return True

    def read(self, retries: Retries = ONCE) -> bytes:
        """The PNG."""
        del retries
        return self.data


def read(
    folder: Path | None = None, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False
) -> RetrievalTask:
    """One picture and caption of each thing on each plain ground that no training stage has shown it on.

    Args:
        folder: not used.
        split: "held-out", the only one.
        languages: codes; empty for all eighteen.
        allow_missing: leave out missing images.
    """
    del folder, split
    pairs = {f"{concept.names['en']} on {ground.name}": (concept, ground) for concept, ground in plain_pairs(True)}
    said = [
        Caption(code, captions(concept, ground, code)[0], [name])
        for code in LANGUAGES
        if code in (languages or LANGUAGES)
        for name, (concept, ground) in pairs.items()
    ]
    images = [(name, _rendered(name, Scene("one", (concept,), ground))) for name, (concept, ground) in pairs.items()]
    return new_task("emoji held-out", images, said, languages, allow_missing)


def _rendered(name: str, scene: Scene) -> Rendered:
    stream = io.BytesIO()
    scene.render().save(stream, "png")
    return Rendered(name, stream.getvalue())
