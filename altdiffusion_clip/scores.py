"""What scoring and ranking give, and the one place that decides what a score is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from altdiffusion_clip.images import BrokenImage

NOT_A_NUMBER = "the score is not a number"


@dataclass(frozen=True)
class Scores:
    """How well texts and pictures fit, pair by pair.

    Attributes:
        cosine: float32, in [-1, 1]; NaN where the picture is broken.
        broken: the pictures without a score: they could not be read, or their score is not a number.
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
        rank: from 1, the best.
        index: its place in the list that was ranked.
        name: its path, or what it is.
        cosine: in [-1, 1].
        clip_score: 100 · max(cosine, 0).
        probability: softmax over logit_scale · cosine within this ranking.
    """

    rank: int
    index: int
    name: str
    cosine: float
    clip_score: float
    probability: float


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
    """The pictures without a score, in order: those that could not be read, and those whose cosine is not finite.

    A model in half precision may overflow, and NaN would rank before everything.

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


def ranked(scores: Scores, names: Sequence[str], logit_scale: float) -> Ranking:
    """Orders pictures by their scores, best first; equal scores keep their order, and broken pictures have no rank.

    Args:
        scores: of the pictures.
        names: of the pictures.
        logit_scale: what cosines are multiplied by for the softmax.
    """
    bad = {image.index for image in scores.broken}
    good = [index for index in range(len(names)) if index not in bad]
    cosine, clip_score = scores.cosine[good], scores.clip_score[good]
    probability = (logit_scale * cosine).softmax(0)
    order = cosine.argsort(descending=True, stable=True).tolist()
    images = [
        RankedImage(
            rank=rank,
            index=good[i],
            name=names[good[i]],
            cosine=cosine[i].item(),
            clip_score=clip_score[i].item(),
            probability=probability[i].item(),
        )
        for rank, i in enumerate(order, start=1)
    ]
    return Ranking(images, scores.broken)
