"""Exact quantiles of more scores than memory holds."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

_HALF = 1 << 16

Stream = Callable[[], Iterable[tuple[str, np.ndarray]]]
"""Each call starts again, and yields groups with some of their finite scores, float32 (scores,)."""


def order_statistics(stream: Stream, ranks: Mapping[str, Sequence[int]]) -> dict[str, dict[int, float]]:
    """Finds the scores with given ranks in each group. Rank 0 is the smallest.

    Non-negative float32 numbers are ordered as their bits are, and negative ones in reverse. So a first pass counts the
    upper halves of the bits, and a second pass the lower halves of those that share the wanted upper half.

    Args:
        stream: the scores.
        ranks: the wanted ranks by group, less than the number of the group's scores.

    Example:
        >>> order_statistics(lambda: [("a", np.float32([3, -1, 2]))], {"a": [0, 2]})
        {'a': {0: -1.0, 2: 3.0}}
    """
    upper = {group: np.zeros(_HALF, np.int64) for group in ranks}
    for group, scores in stream():
        if group in upper:
            upper[group] += np.bincount(_ordered(scores) >> 16, minlength=_HALF)
    below = {group: np.concatenate([[0], np.cumsum(counts)]) for group, counts in upper.items()}
    half = {
        group: {rank: int(np.searchsorted(below[group], rank, "right")) - 1 for rank in wanted}
        for group, wanted in ranks.items()
    }
    lower = {group: {bits: np.zeros(_HALF, np.int64) for bits in set(half[group].values())} for group in ranks}
    for group, scores in stream():
        ordered = _ordered(scores)
        for bits, counts in lower.get(group, {}).items():
            counts += np.bincount(ordered[ordered >> 16 == bits] & (_HALF - 1), minlength=_HALF)
    found: dict[str, dict[int, float]] = {}
    for group, wanted in half.items():
        found[group] = {}
        for rank, bits in wanted.items():
            within = np.cumsum(lower[group][bits])
            last = int(np.searchsorted(within, rank - below[group][bits], "right"))
            found[group][rank] = _value((bits << 16) | last)
    return found


def quantiles(stream: Stream, counts: Mapping[str, int], share: float) -> dict[str, float]:
    """Quantiles by group, interpolated as numpy's "linear" does.

    Args:
        stream: the scores.
        counts: the number of scores in each group.
        share: from 0 to 1.
    """
    places = {group: (count - 1) * share for group, count in counts.items()}
    wanted = {group: sorted({int(np.floor(place)), int(np.ceil(place))}) for group, place in places.items()}
    statistics = order_statistics(stream, wanted)
    return {
        group: statistics[group][ranks[0]]
        + (places[group] - ranks[0]) * (statistics[group][ranks[-1]] - statistics[group][ranks[0]])
        for group, ranks in wanted.items()
    }


def _ordered(scores: np.ndarray) -> np.ndarray:
    """Maps scores to uint32 numbers with the same order."""
    bits = np.ascontiguousarray(scores + np.float32(0), np.float32).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value(ordered: int) -> float:
    bits = ordered & ~(1 << 31) if ordered >> 31 else ~ordered & 0xFFFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])
