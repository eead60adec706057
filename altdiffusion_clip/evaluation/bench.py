"""Measures systems on a retrieval task: figures by language, and some failures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.task import RetrievalTask
from altdiffusion_clip.evaluation.ranks import Ranks, ranks_of_embeddings, ranks_of_similarity
from altdiffusion_clip.evaluation.retrieval import KS, Retrieval, intervals, retrieval_of_ranks
from altdiffusion_clip.judges.base import is_dual
from altdiffusion_clip.judges.embedding_files import SUFFIXES, read_embeddings
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.ensembles import Ensemble, Panel
from altdiffusion_clip.judges.judging import embed_pictures, judge_all
from altdiffusion_clip.judges.names import load_panel

FAILURES = 12


@dataclass(frozen=True)
class Failure:
    """A text whose image was not found first.

    Attributes:
        text: the query.
        right: index of its image.
        found: index of the image that came first.
        score_right: of the text with its image; a cosine if the judge has vectors.
        score_found: of the text with the first image.
    """

    text: str
    right: int
    found: int
    score_right: float
    score_found: float


@dataclass(frozen=True)
class Measured:
    """The results of a system in one language.

    Attributes:
        system: its name.
        language: code.
        texts: number of texts.
        images: number of candidates.
        figures: recalls and their mean, in percent.
        intervals: 95% intervals by the names of the figures, in percent.
        failures: the first few failures.
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
    """A judge's vectors for a task: of all images, and of the texts by language."""

    images: np.ndarray
    texts: Callable[[str], np.ndarray]
    broken: list[tuple[int, str, str]]

    def compared(self, code: str, rows: np.ndarray, places: np.ndarray) -> "Compared":
        """Some texts of a language with some images."""
        texts, images = self.texts(code)[rows], self.images[places]
        return Compared(
            lambda pairs, ties: ranks_of_embeddings(texts, images, pairs, max(KS), ties),
            lambda row: images @ texts[row],
        )


@dataclass(frozen=True)
class Similarities:
    """The scores of a judge without vectors: all texts of each language with all images."""

    matrix: Callable[[str], np.ndarray]
    broken: list[tuple[int, str, str]]

    def compared(self, code: str, rows: np.ndarray, places: np.ndarray) -> "Compared":
        """Some texts of a language with some images."""
        scores = self.matrix(code)[rows][:, places]
        return Compared(
            lambda pairs, ties: ranks_of_similarity(torch.from_numpy(scores), pairs, max(KS), ties),
            lambda row: scores[row],
        )


@dataclass(frozen=True)
class Compared:
    """Gives the ranks of pairs for a way of breaking ties, and the scores of one text."""

    ranks: Callable[[np.ndarray, str], Ranks]
    row: Callable[[int], np.ndarray]


def vectors_of(
    spec: str,
    task: RetrievalTask,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    bench_of: Callable[[Panel], Bench] = Bench,
    long_text: str = "truncate",
) -> Vectors | Similarities:
    """Runs a judge on a task, or reads its embeddings from a file.

    Args:
        spec: a judge, as for `load_judge`, or an embedding file.
        task: with the texts and images.
        device: for the judge.
        dtype: of the judge.
        bench_of: makes a bench for the judge.
        long_text: how to read texts with too many tokens, one of `LONG_TEXT`.

    Raises:
        UserError: the judge cannot be loaded, or the file is incomplete.
    """
    path = Path(spec)
    if path.suffix in SUFFIXES and not path.is_dir():
        stored = read_embeddings(path)
        here = [place for place, image in enumerate(task.images) if image.is_there()]
        images = np.full((len(task.ids), stored.img_embedding.shape[-1]), np.nan, np.float32)
        images[here] = stored.images_of([task.ids[place] for place in here], path)
        return Vectors(images, lambda code: stored.texts_of(task.languages[code].texts, path), [])
    panel = load_panel(spec, device, dtype, long_text=long_text)
    (judge,) = panel.columns
    used = np.unique(np.concatenate([language.images for language in task.languages.values()]))
    pictures = [task.images[place] for place in used]
    bench = bench_of(panel)

    def named(broken: Sequence[tuple[int, str]]) -> list[tuple[int, str, str]]:
        return [(int(used[place]), pictures[place].name, reason) for place, reason in broken]

    if isinstance(judge, Ensemble) or not is_dual(judge) or long_text == "window-max":
        texts = {code: language.texts for code, language in task.languages.items()}
        scores, wrong = judge_all([text for said in texts.values() for text in said], pictures, bench)
        whole = np.full((scores.shape[1], len(task.ids)), np.nan, np.float32)
        whole[:, used] = scores[0].numpy()
        starts = np.cumsum([0, *map(len, texts.values())])
        of = {code: whole[a:b] for code, a, b in zip(texts, starts, starts[1:], strict=False)}
        return Similarities(of.__getitem__, named(wrong))
    embedded = embed_pictures(bench, pictures)
    images = np.full((len(task.ids), judge.dim), np.nan, np.float32)
    images[used] = embedded.vectors
    return Vectors(images, lambda code: bench.encoder.texts(task.languages[code].texts).numpy(), named(embedded.broken))


def measure(
    name: str, vectors: Vectors | Similarities, task: RetrievalTask, ties: str = "mean", allow_missing: bool = False
) -> list[Measured]:
    """Measures retrieval in every language of a task.

    Args:
        name: of the system.
        vectors: of all images and texts.
        task: says which texts and images belong together.
        ties: how to rank equal similarities.
        allow_missing: leave out pictures that could not be read, and texts without any other picture.

    Raises:
        UserError: a picture could not be read.
    """
    if vectors.broken and not allow_missing:
        _, first, reason = vectors.broken[0]
        raise UserError(
            f"{task.name}: {len(vectors.broken)} of {len(task.images)} images cannot be read, the first is {first}: "
            f"{reason}; fix them, or skip them with --allow-missing"
        )
    gone = {place for place, _, _ in vectors.broken}
    return [_measure(name, vectors, task, code, ties, gone) for code in task.languages]


def _measure(
    name: str, vectors: Vectors | Similarities, task: RetrievalTask, code: str, ties: str, gone: set[int]
) -> Measured:
    language = task.languages[code]
    kept, places, pairs = np.arange(len(language.texts)), language.images, language.pairs
    if gone:
        whole = np.array([place not in gone for place in places])
        pairs = pairs[whole[pairs[:, 1]]]
        kept = np.unique(pairs[:, 0])
        pairs = np.stack([np.searchsorted(kept, pairs[:, 0]), (np.cumsum(whole) - 1)[pairs[:, 1]]], 1)
        places = places[whole]
        if not len(kept):
            raise UserError(f"{task.name}: no image with a text in {code} can be read")
    compared = vectors.compared(code, kept, places)
    ranks = compared.ranks(pairs, ties)
    failures = _failures(compared, pairs, ranks.of_texts, [language.texts[row] for row in kept], places)
    return Measured(name, code, len(kept), len(places), retrieval_of_ranks(ranks), intervals(ranks, pairs), failures)


def _failures(
    compared: Compared, pairs: np.ndarray, ranks: np.ndarray, said: Sequence[str], places: np.ndarray
) -> list[Failure]:
    failures = []
    for row in np.flatnonzero(ranks > 1)[:FAILURES]:
        scores = compared.row(row)
        own = pairs[pairs[:, 0] == row, 1]
        right = own[scores[own].argmax()]
        others = scores.copy()
        others[own] = -np.inf
        found = others.argmax()
        failures.append(
            Failure(said[row], int(places[right]), int(places[found]), float(scores[right]), float(scores[found]))
        )
    return failures
