"""The results of scoring and ranking, and the one definition of a valid score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from altdiffusion_clip.images import BrokenImage

COSINE = "cosine"

NOT_A_NUMBER = "the score is not a number"


@dataclass(frozen=True)
class Scores:
    """How well texts and pictures fit, pair by pair.

    Attributes:
        cosine: float32, in [-1, 1]; NaN where the picture is broken.
        broken: the pictures without a score, because they could not be read or their score is not a number.
    """

    cosine: Tensor
    broken: list[BrokenImage] = field(default_factory=list)

    @property
    def clip_score(self) -> Tensor:
        """100 · max(cosine, 0), as torchmetrics' CLIPScore (Hessel et al., arXiv 2104.08718)."""
        return 100 * self.cosine.clamp(min=0)


@dataclass(frozen=True)
class RankedImage:
    """One picture of a ranking.

    Attributes:
        rank: 1 is the best.
        index: its index in the list that was ranked.
        name: its path, or its kind and index.
        score: the score that the ranking is ordered by.
        measure: what the score is: "cosine", in [-1, 1], or "score", without a unit.
        probability: that the text belongs to the picture, according to the judge (for AltCLIP and CLIP, the softmax
            over logit_scale · cosine within this ranking); None if its scores do not say.
        scores: of the other judges, by name.
    """

    rank: int
    index: int
    name: str
    score: float
    measure: str = COSINE
    probability: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def cosine(self) -> float | None:
        """The score, if it is a cosine."""
        return self.score if self.measure == COSINE else None

    @property
    def clip_score(self) -> float | None:
        """100 · max(cosine, 0), if the score is a cosine."""
        return clip_score_of(self.score) if self.measure == COSINE else None

    def as_dict(self) -> dict[str, Any]:
        """The numbers with their names, for tables and JSON."""
        return named_scores(self.score, self.measure, self.probability, self.scores)


def clip_score_of(cosine: float) -> float:
    """100 · max(cosine, 0), as torchmetrics' CLIPScore (Hessel et al., arXiv 2104.08718)."""
    return 100 * max(cosine, 0.0)


def named_scores(
    score: float, measure: str, probability: float | None = None, others: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """A score as results record it: named after its measure, with the figures derived from it.

    Example:
        >>> named_scores(0.25, "cosine", others={"sharpness": 7.0})
        {'cosine': 0.25, 'clip_score': 25.0, 'judges': {'sharpness': 7.0}}
    """
    row: dict[str, Any] = {measure: round(score, 6)}
    if measure == COSINE:
        row["clip_score"] = round(clip_score_of(score), 4)
    if probability is not None:
        row["probability"] = round(probability, 6)
    if others:
        row["judges"] = {name: round(value, 6) for name, value in others.items()}
    return row


@dataclass(frozen=True)
class Ranking(Sequence[RankedImage]):
    """Pictures, best first, and those without a score."""

    images: list[RankedImage]
    broken: list[BrokenImage] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: Any) -> Any:
        return self.images[position]

    def __iter__(self) -> Iterator[RankedImage]:
        return iter(self.images)


def without_score(cosine: Tensor, broken: Sequence[BrokenImage], names: Sequence[str]) -> list[BrokenImage]:
    """The pictures without a score, in order: those that could not be read or whose cosine is not finite.

    A model in half precision may overflow, and NaN would rank first.

    Args:
        cosine: float (pictures,).
        broken: the pictures that could not be read.
        names: of all pictures.

    Example:
        >>> [str(image) for image in without_score(torch.tensor([0.3, torch.nan]), [], ["a.png", "b.png"])]
        ['b.png: the score is not a number']
    """
    known = {image.index: image for image in broken}
    places = (~torch.isfinite(cosine)).nonzero().flatten().tolist()
    return [known.get(place) or BrokenImage(place, names[place], NOT_A_NUMBER) for place in places]


class Column(Protocol):
    """What a score measures, and the figures derived from it."""

    @property
    def name(self) -> str:
        """The name to show."""

    @property
    def measure(self) -> str:
        """The name of the measure."""

    def probability(self, scores: Tensor) -> Tensor | None:
        """The probability of each picture of one text."""


@dataclass(frozen=True)
class Softmax:
    """A cosine. Its probabilities are a softmax.

    Attributes:
        logit_scale: the factor of cosines in the softmax.
        name: to show.
        measure: cosine.
    """

    logit_scale: float
    name: str = COSINE
    measure: str = COSINE

    def probability(self, scores: Tensor) -> Tensor:
        """The probability of each picture, float32 (pictures,)."""
        return (self.logit_scale * scores).softmax(0)


def ranked(scores: Scores, names: Sequence[str], logit_scale: float) -> Ranking:
    """Orders pictures by their cosines, best first. Equal scores keep their order; broken pictures get no rank.

    Args:
        scores: of the pictures.
        names: of the pictures.
        logit_scale: the factor of cosines in the softmax.
    """
    return in_order(scores.cosine[None], [Softmax(logit_scale)], names, {image.index: image for image in scores.broken})


def in_order(
    scores: Tensor, columns: Sequence[Column], names: Sequence[str], broken: Mapping[int, BrokenImage]
) -> Ranking:
    """Orders pictures by the first of several scores, best first. Equal scores keep their order.

    A picture without a finite score gets no rank.

    Args:
        scores: float (columns, pictures).
        columns: what each column measures.
        names: of the pictures.
        broken: the pictures that could not be read, by index.
    """
    finite = torch.isfinite(scores).all(0)
    good = [place for place in range(len(names)) if finite[place] and place not in broken]
    lost = [broken.get(place) or BrokenImage(place, names[place], NOT_A_NUMBER) for place in range(len(names))]
    first, *others = columns
    kept = scores[:, good]
    probability = first.probability(kept[0])
    order = kept[0].argsort(descending=True, stable=True).tolist()
    images = [
        RankedImage(
            rank=rank,
            index=good[i],
            name=names[good[i]],
            score=kept[0, i].item(),
            measure=first.measure,
            probability=None if probability is None else probability[i].item(),
            scores={column.name: kept[place, i].item() for place, column in enumerate(others, start=1)},
        )
        for rank, i in enumerate(order, start=1)
    ]
    return Ranking(images, [image for place, image in enumerate(lost) if place not in set(good)])
