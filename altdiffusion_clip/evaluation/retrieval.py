"""Recall@k between texts and images, both ways."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Retrieval:
    """Recall at 1, 5 and 10 both ways and their mean, in percent."""

    text_to_image_r1: float
    text_to_image_r5: float
    text_to_image_r10: float
    image_to_text_r1: float
    image_to_text_r5: float
    image_to_text_r10: float

    @property
    def mr(self) -> float:
        """Mean of the six recalls, in percent."""
        return sum(asdict(self).values()) / 6

    def as_dict(self) -> dict[str, float]:
        """All seven figures by name, in percent."""
        return {**asdict(self), "mr": self.mr}


def recall_at(similarity: Tensor, relevant: Tensor, k: int) -> float:
    """Share of rows with a relevant column among the k most similar, in percent.

    A tie counts half: the rank of a row's best relevant column is one more than the irrelevant columns that
    are more similar, plus half of those that are equal. A constant similarity therefore does not score.

    Args:
        similarity: float (queries, candidates).
        relevant: bool (queries, candidates), at least one true in each row.
        k: how many candidates are looked at.

    Example:
        >>> recall_at(torch.eye(4), torch.eye(4, dtype=torch.bool), 1)
        100.0
    """
    best = similarity.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    irrelevant = similarity.masked_fill(relevant, -torch.inf)
    rank = 1 + (irrelevant > best).sum(1) + 0.5 * (irrelevant == best).sum(1)
    return 100 * (rank <= k).float().mean().item()


def retrieval(similarity: Tensor, relevant: Tensor) -> Retrieval:
    """All recalls of a similarity matrix.

    Args:
        similarity: float (texts, images).
        relevant: bool (texts, images), at least one true in each row and column.

    Raises:
        ValueError: the shapes differ, something is not finite, or a row or column has nothing relevant.
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {tuple(similarity.shape)} but relevant is {tuple(relevant.shape)}")
    if not torch.isfinite(similarity).all():
        raise ValueError("a similarity is not finite; leave broken images out")
    if not (relevant.any(0).all() and relevant.any(1).all()):
        raise ValueError("each text needs a relevant image, and each image a relevant text")
    both = ((similarity, relevant), (similarity.T, relevant.T))
    return Retrieval(*(recall_at(s, r, k) for s, r in both for k in (1, 5, 10)))
