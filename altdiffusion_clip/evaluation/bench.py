"""Systems on a retrieval task: figures by language, and some of what goes wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.cache import EmbeddingCache
from altdiffusion_clip.evaluation.datasets.task import RetrievalTask
from altdiffusion_clip.evaluation.embedding_files import SUFFIXES, read_embeddings
from altdiffusion_clip.evaluation.encoding import encode_images, encode_texts
from altdiffusion_clip.evaluation.ranks import ranks_of_embeddings
from altdiffusion_clip.evaluation.retrieval import KS, Retrieval, intervals, retrieval_of_ranks
from altdiffusion_clip.evaluation.systems.names import load_system

FAILURES = 12


@dataclass(frozen=True)
class Failure:
    """A text whose image was not the first.

    Attributes:
        text: the query.
        right: place of its image in the task's images.
        found: place of the image that came first.
        cosine_right: of the text with its image, in [-1, 1].
        cosine_found: of the text with the first.
    """

    text: str
    right: int
    found: int
    cosine_right: float
    cosine_found: float


@dataclass(frozen=True)
class Measured:
    """A system in a language.

    Attributes:
        system: its name.
        language: code.
        texts: how many.
        images: how many candidates.
        figures: recalls and their mean, in percent.
        intervals: 95%, by the figures' names, in percent.
        failures: the first few.
    """

    system: str
    language: str
    texts: int
    images: int
    figures: Retrieval
    intervals: dict[str, tuple[float, float]]
    failures: list[Failure] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """One flat row, with the unit."""
        return {
            "system": self.system,
            "language": self.language,
            "texts": self.texts,
            "images": self.images,
            **{key: round(value, 2) for key, value in self.figures.as_dict().items()},
            "interval_95": {key: [round(low, 2), round(high, 2)] for key, (low, high) in self.intervals.items()},
            "unit": "percent",
        }


@dataclass(frozen=True)
class Vectors:
    """What a system makes of a task: vectors of all images, and of the texts by language."""

    images: np.ndarray
    texts: Callable[[str], np.ndarray]
    broken: list[tuple[int, str, str]]


def vectors_of(
    spec: str,
    task: RetrievalTask,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
) -> Vectors:
    """Encodes a task with a system, or reads its embeddings from a file.

    Args:
        spec: as for `load_system`, or an embedding file.
        task: whose texts and images.
        cache: folder of embeddings from before; None for none.
        device: for the system.
        dtype: of its weights and arithmetic.
        batch_size: pictures at a time.

    Raises:
        UserError: the system cannot be loaded, or the file lacks something.
    """
    path = Path(spec)
    if path.suffix in SUFFIXES and not path.is_dir():
        stored = read_embeddings(path)
        here = [place for place, image in enumerate(task.images) if image.is_there()]
        images = np.full((len(task.ids), stored.img_embedding.shape[-1]), np.nan, np.float32)
        images[here] = stored.images_of([task.ids[place] for place in here], path)
        return Vectors(images, lambda code: stored.texts_of(task.languages[code].texts, path), [])
    system = load_system(spec, device, dtype)
    kept = EmbeddingCache(cache, system.fingerprint() if cache is not None else "")
    used = np.unique(np.concatenate([language.images for language in task.languages.values()]))
    encoded = encode_images(system, [task.images[place] for place in used], kept, batch_size)
    images = np.full((len(task.ids), encoded.vectors.shape[1]), np.nan, np.float32)
    images[used] = encoded.vectors
    broken = [(int(used[place]), name, reason) for place, name, reason in encoded.broken]
    return Vectors(images, lambda code: encode_texts(system, task.languages[code].texts, kept), broken)


def measure(
    name: str, vectors: Vectors, task: RetrievalTask, ties: str = "mean", allow_missing: bool = False
) -> list[Measured]:
    """Retrieval in every language of a task.

    Args:
        name: of the system.
        vectors: of all its images and texts.
        task: what belongs together.
        ties: the rank where others are as similar.
        allow_missing: leave out pictures that could not be read, and texts that have no other.

    Raises:
        UserError: a picture could not be read.
    """
    if vectors.broken and not allow_missing:
        _, first, reason = vectors.broken[0]
        raise UserError(
            f"{task.name}: {len(vectors.broken)} of {len(task.images)} images cannot be read, the first is {first}: "
            f"{reason}; mend them, or leave them out with --allow-missing"
        )
    gone = {place for place, _, _ in vectors.broken}
    return [_measure(name, vectors, task, code, ties, gone) for code in task.languages]


def _measure(name: str, vectors: Vectors, task: RetrievalTask, code: str, ties: str, gone: set[int]) -> Measured:
    language = task.languages[code]
    texts, places, pairs = vectors.texts(code), language.images, language.pairs
    said: Sequence[str] = language.texts
    if gone:
        whole = np.array([place not in gone for place in places])
        pairs = pairs[whole[pairs[:, 1]]]
        kept = np.unique(pairs[:, 0])
        pairs = np.stack([np.searchsorted(kept, pairs[:, 0]), (np.cumsum(whole) - 1)[pairs[:, 1]]], 1)
        texts, said, places = texts[kept], [said[row] for row in kept], places[whole]
        if not len(kept):
            raise UserError(f"{task.name}: no image with a text in {code} can be read")
    images = vectors.images[places]
    ranks = ranks_of_embeddings(texts, images, pairs, max(KS), ties)
    failures = _failures(texts, images, pairs, ranks.of_texts, said, places)
    return Measured(name, code, len(texts), len(images), retrieval_of_ranks(ranks), intervals(ranks, pairs), failures)


def _failures(
    texts: np.ndarray,
    images: np.ndarray,
    pairs: np.ndarray,
    ranks: np.ndarray,
    said: Sequence[str],
    places: np.ndarray,
) -> list[Failure]:
    failures = []
    for row in np.flatnonzero(ranks > 1)[:FAILURES]:
        cosines = images @ texts[row]
        own = pairs[pairs[:, 0] == row, 1]
        right = own[cosines[own].argmax()]
        others = cosines.copy()
        others[own] = -np.inf
        found = others.argmax()
        failures.append(
            Failure(said[row], int(places[right]), int(places[found]), float(cosines[right]), float(cosines[found]))
        )
    return failures
