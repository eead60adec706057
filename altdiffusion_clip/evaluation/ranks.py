"""Finds the rank of each text's image and each image's text without holding the similarity matrix in memory.

The matrix is computed tile by tile. Queries whose rank exceeds the largest k are not counted any further, and tiles in
which no similarity reaches a query's best are skipped for it. So it takes little longer than the matrix products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TIES = ("mean", "first", "best", "worst")
"""How to rank equal similarities: in the middle of them, by their order (as in a stable sort, which Chinese-CLIP's
script uses), before them, or after them."""

TOLERANCE = 1e-6
"""Cosines closer than this count as equal. It exceeds the rounding of float32 products, but not real differences."""

_TILE, _TILE_OF_GPU = (1024, 4096), (4096, 16384)
_PAIRS_AT_ONCE = 65536


@dataclass(frozen=True)
class Ranks:
    """Ranks of the best relevant candidates, from 1, float64.

    A rank beyond `up_to` is infinite. An image without a text is only a candidate, and its rank is NaN.

    Attributes:
        of_texts: (texts,), the rank of each text's best image among all images.
        of_images: (images,), the rank of each image's best text among all texts.
        up_to: the largest exact rank.
    """

    of_texts: np.ndarray
    of_images: np.ndarray
    up_to: int


def ranks_of_similarity(similarity: Tensor, pairs: np.ndarray, up_to: int = 10, ties: str = "mean") -> Ranks:
    """Ranks from a similarity matrix. Only exactly equal similarities are ties.

    Args:
        similarity: float (texts, images).
        pairs: int64 (pairs, 2), texts and images that belong together; each text needs at least one.
        up_to: larger ranks are not distinguished.
        ties: one of `TIES`.

    Raises:
        ValueError: a similarity is not finite, or a text has no image.

    Example:
        >>> ranks_of_similarity(torch.eye(3), np.array([[0, 0], [1, 1], [2, 0], [2, 2]])).of_texts
        array([1., 1., 1.])
    """
    if not torch.isfinite(similarity).all():
        raise ValueError("a similarity is not finite; leave broken images out")
    texts, images = similarity.shape
    relevant = similarity[pairs[:, 0], pairs[:, 1]]

    def tile(rows: slice, columns: slice) -> Tensor:
        return similarity[rows, columns]

    return _ranks(tile, (texts, images), relevant, pairs, up_to, ties, 0.0, _TILE)


def ranks_of_embeddings(
    texts: np.ndarray | Tensor,
    images: np.ndarray | Tensor,
    pairs: np.ndarray,
    up_to: int = 10,
    ties: str = "mean",
    tolerance: float = TOLERANCE,
    tile: tuple[int, int] | None = None,
) -> Ranks:
    """Ranks from unit vectors, with one tile of the matrix in memory at a time.

    They are computed on the device of the vectors.

    Args:
        texts: float (texts, dim); may be memory-mapped or in half precision.
        images: float (images, dim), likewise.
        pairs: int64 (pairs, 2), texts and images that belong together; each text needs at least one.
        up_to: larger ranks are not distinguished.
        ties: one of `TIES`.
        tolerance: cosines closer than this are equal.
        tile: texts and images at a time; chosen for the device by default.

    Raises:
        ValueError: the widths differ, a vector is not finite, or a text has no image.
    """
    if texts.shape[1] != images.shape[1]:
        raise ValueError(f"texts have vectors of {texts.shape[1]} numbers and images of {images.shape[1]}")
    relevant = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        relevant.append((_rows(texts, part[:, 0]) * _rows(images, part[:, 1])).sum(1))
    of_pairs = torch.cat(relevant)
    tile = tile or tile_for(of_pairs.device)
    products = _Products(texts, images, tile, of_pairs.device)
    return _ranks(products, (len(texts), len(images)), of_pairs, pairs, up_to, ties, tolerance, tile)


def tile_for(device: torch.device) -> tuple[int, int]:
    """The size of a tile: one that fits a CPU's caches, or keeps a GPU busy (268 MB)."""
    return _TILE if device.type == "cpu" else _TILE_OF_GPU


class _Products:
    """Yields tiles of the cosine matrix, all in the same buffer."""

    def __init__(
        self, texts: np.ndarray | Tensor, images: np.ndarray | Tensor, tile: tuple[int, int], device: torch.device
    ) -> None:
        self._texts, self._images = texts, images
        self._out = torch.empty(tile[0] * tile[1], device=device)
        self._rows: tuple[slice, Tensor] | None = None

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        if self._rows is None or self._rows[0] != rows:
            self._rows = rows, _float(self._texts[rows])
        left, right = self._rows[1], _float(self._images[columns])
        out = self._out[: len(left) * len(right)].view(len(left), len(right))
        return torch.mm(left, right.T, out=out)


def _ranks(
    tile_of: Callable[[slice, slice], Tensor],
    shape: tuple[int, int],
    relevant: Tensor,
    pairs: np.ndarray,
    up_to: int,
    ties: str,
    tolerance: float,
    tile: tuple[int, int],
) -> Ranks:
    if ties not in TIES:
        raise ValueError(f"ties {ties!r}; choose one of {', '.join(TIES)}")
    if not torch.isfinite(relevant).all():
        raise ValueError("a vector is not finite; leave broken images out")
    counts = tuple(_Counts(shape, pairs, relevant, side, up_to, ties, tolerance) for side in (0, 1))
    for top in range(0, shape[0], tile[0]):
        rows = slice(top, min(top + tile[0], shape[0]))
        for left in range(0, shape[1], tile[1]):
            columns = slice(left, min(left + tile[1], shape[1]))
            similarity = tile_of(rows, columns)
            counts[0].add(similarity, rows, columns)
            counts[1].add(similarity.T, columns, rows)
    return Ranks(counts[0].ranks(), counts[1].ranks(), up_to)


class _Counts:
    """Counts the candidates that are more similar, and equally similar, to each query than its best relevant one."""

    def __init__(
        self,
        shape: tuple[int, int],
        pairs: np.ndarray,
        relevant: Tensor,
        side: int,
        up_to: int,
        ties: str,
        tolerance: float,
    ) -> None:
        count, device = shape[side], relevant.device
        query, candidate = (torch.from_numpy(np.ascontiguousarray(pairs[:, i])).to(device) for i in (side, 1 - side))
        self._best = torch.full((count,), -torch.inf, dtype=relevant.dtype, device=device)
        self._best.scatter_reduce_(0, query, relevant, "amax")
        # No similarity reaches infinity, so mere candidates are never counted.
        self._only_candidates = torch.isinf(self._best)
        if side == 0 and self._only_candidates.any():
            raise ValueError(f"text {int(self._only_candidates.nonzero()[0, 0])} has no image")
        self._best[self._only_candidates] = torch.inf
        is_best = relevant >= self._best[query] - tolerance
        self._equal = torch.zeros(count, device=device)
        if ties != "first":
            # Relevant candidates as similar as the best are not rivals. The tiles count them, so they are subtracted
            # here. Nothing comes before the first of them.
            self._equal.index_add_(0, query, is_best.float(), alpha=-1)
        self._first = torch.full((count,), shape[1 - side], device=device)
        self._first.scatter_reduce_(0, query[is_best], candidate[is_best], "amin")
        self._greater = torch.zeros(count, device=device)
        self._up_to, self._ties, self._tolerance = up_to, ties, tolerance

    def add(self, similarity: Tensor, queries: slice, candidates: slice) -> None:
        best = self._best[queries]
        reaches = similarity.amax(1) >= best - self._tolerance
        open_ones = (reaches & (self._greater[queries] < self._up_to)).nonzero()[:, 0]
        if not len(open_ones):
            return
        # Columns are processed as columns, because rows of the transpose would be read one number at a time.
        seen = similarity[open_ones] if similarity.is_contiguous() else similarity.T.index_select(1, open_ones).T
        limit = best[open_ones, None]
        rows = open_ones + queries.start
        greater = seen > limit + self._tolerance
        self._greater[rows] += greater.sum(1)
        equal = (seen >= limit - self._tolerance) & ~greater
        if self._ties == "first":
            places = torch.arange(candidates.start, candidates.start + seen.shape[1], device=seen.device)
            equal &= places < self._first[rows, None]
        self._equal[rows] += equal.sum(1)

    def ranks(self) -> np.ndarray:
        share = {"mean": 0.5, "first": 1.0, "best": 0.0, "worst": 1.0}[self._ties]
        # Queries that are no longer counted may have had more subtracted than added.
        ranks = (1 + self._greater + share * self._equal.clamp(min=0)).double()
        ranks = torch.where(ranks <= self._up_to, ranks, torch.inf)
        return ranks.masked_fill(self._only_candidates, torch.nan).cpu().numpy()


def _rows(vectors: np.ndarray | Tensor, places: np.ndarray) -> Tensor:
    at = torch.from_numpy(places).to(vectors.device) if isinstance(vectors, Tensor) else places
    return _float(vectors[at])


def _float(rows: np.ndarray | Tensor) -> Tensor:
    if isinstance(rows, Tensor):
        return rows.float()
    array = np.asarray(rows, dtype=np.float32)
    # torch warns of read-only arrays such as memory-mapped ones.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
