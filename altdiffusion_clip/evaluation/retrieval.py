"""Text and image retrieval both ways: recall at 1, 5 and 10, their mean, and confidence intervals.

A query is found if any relevant candidate is among the first k, as in CLIP's table, CLIP_benchmark and Chinese-CLIP's
scripts. An image with five captions has five relevant texts, and the captions of all images are candidates.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from altdiffusion_clip.evaluation.ranks import Ranks, ranks_of_embeddings, ranks_of_similarity

KS = (1, 5, 10)
RESAMPLES = 1000


@dataclass(frozen=True)
class Retrieval:
    """Recall at 1, 5 and 10 both ways, and the mean, in percent."""

    text_to_image_r1: float
    text_to_image_r5: float
    text_to_image_r10: float
    image_to_text_r1: float
    image_to_text_r5: float
    image_to_text_r10: float

    @property
    def mr(self) -> float:
        """The mean of the six recalls, in percent."""
        return sum(asdict(self).values()) / 6

    def as_dict(self) -> dict[str, float]:
        """All seven figures by name, in percent."""
        return {**asdict(self), "mr": self.mr}


def recall_at(similarity: Tensor, relevant: Tensor, k: int) -> float:
    """The share of rows with a relevant column among the k most similar, in percent.

    Ties count half: the rank of a row's best relevant column is one plus the number of irrelevant columns that are more
    similar, plus half of those that are equal. So a constant similarity does not score.

    Args:
        similarity: float (queries, candidates).
        relevant: bool (queries, candidates), at least one true in each row.
        k: number of candidates.

    Example:
        >>> recall_at(torch.eye(4), torch.eye(4, dtype=torch.bool), 1)
        100.0
    """
    best = similarity.masked_fill(~relevant, -torch.inf).amax(1, keepdim=True)
    irrelevant = similarity.masked_fill(relevant, -torch.inf)
    rank = 1 + (irrelevant > best).sum(1) + 0.5 * (irrelevant == best).sum(1)
    return 100 * (rank <= k).float().mean().item()


def retrieval_of_ranks(ranks: Ranks) -> Retrieval:
    """All recalls from ranks."""
    queries = (ranks.of_texts, ranks.of_images[~np.isnan(ranks.of_images)])
    return Retrieval(*(float(100 * (of <= k).mean()) for of in queries for k in KS))


def retrieval(similarity: Tensor, relevant: Tensor, ties: str = "mean") -> Retrieval:
    """All recalls from a similarity matrix.

    Args:
        similarity: float (texts, images).
        relevant: bool (texts, images), at least one true in each row and column.
        ties: how to rank equal similarities; see `ranks.TIES`. The default is the middle of them, so that a constant
            similarity does not score.

    Raises:
        ValueError: the shapes differ, a similarity is not finite, or a row or column has nothing relevant.

    Example:
        >>> retrieval(torch.eye(4), torch.eye(4, dtype=torch.bool)).mr
        100.0
    """
    if similarity.shape != relevant.shape:
        raise ValueError(f"similarity is {tuple(similarity.shape)} but relevant is {tuple(relevant.shape)}")
    if not relevant.any(0).all():
        raise ValueError(f"image {int((~relevant.any(0)).nonzero()[0, 0])} has no text")
    return retrieval_of_ranks(ranks_of_similarity(similarity, relevant.nonzero().numpy(), max(KS), ties))


def retrieval_of_embeddings(
    texts: np.ndarray | Tensor, images: np.ndarray | Tensor, pairs: np.ndarray, ties: str = "mean"
) -> tuple[Retrieval, dict[str, tuple[float, float]]]:
    """All recalls between unit vectors, with 95% intervals.

    Args:
        texts: float (texts, dim); may be memory-mapped.
        images: float (images, dim); likewise.
        pairs: int64 (pairs, 2), texts and images that belong together.
        ties: as in `retrieval`.

    Returns:
        The recalls, and the lower and upper ends of the intervals by name, in percent.

    Raises:
        ValueError: the widths differ, a vector is not finite, or a text has no image.
    """
    ranks = ranks_of_embeddings(texts, images, pairs, max(KS), ties)
    return retrieval_of_ranks(ranks), intervals(ranks, pairs)


def intervals(ranks: Ranks, pairs: np.ndarray, resamples: int = RESAMPLES) -> dict[str, tuple[float, float]]:
    """95% bootstrap intervals of all figures, resampling images with replacement.

    Images bring their texts along, because captions of one image are not independent. The candidates stay the same. A
    text of several images counts with the first, and images without a text are not drawn.

    Args:
        ranks: of texts and images.
        pairs: int64 (pairs, 2), texts and images that belong together.
        resamples: number of resamples.

    Returns:
        The 2.5th and 97.5th percentiles, in percent, by the names of `Retrieval.as_dict`.
    """
    first = np.full(len(ranks.of_texts), len(ranks.of_images))
    np.minimum.at(first, pairs[:, 0], pairs[:, 1])
    drawn = np.unique(pairs[:, 1])
    first = np.searchsorted(drawn, first)
    images = len(drawn)
    texts = np.bincount(first, minlength=images)
    found = [np.bincount(first, weights=ranks.of_texts <= k, minlength=images) for k in KS]
    seen = [(ranks.of_images[drawn] <= k).astype(np.float64) for k in KS]
    columns = np.stack([*found, *seen, texts.astype(np.float64)], 1)
    generator = np.random.default_rng(0)
    figures = np.empty((resamples, 7))
    for row in figures:
        times = np.bincount(generator.integers(images, size=images), minlength=images)
        sums = times @ columns
        row[:3] = 100 * sums[:3] / max(sums[6], 1)
        row[3:6] = 100 * sums[3:6] / images
        row[6] = row[:6].mean()
    low, high = np.percentile(figures, (2.5, 97.5), axis=0)
    names = Retrieval(*([0.0] * 6)).as_dict()
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
