"""Mixes languages, with rare ones more often than in the data, as XLM-R did."""

import numpy as np
import torch
from torch import Tensor

_ROWS_AT_ONCE = 1_000_000


class LanguageMix:
    """Draws rows so that each language has its own probability.

    The share of a language with n sentences is proportional to n ** (1 / temperature) (alpha = 1 / temperature in arXiv
    1911.02116, section 3.1): 1 follows the data, infinity makes all languages equal.

    Args:
        language: of each row, an index into `languages`, uint8 (rows,).
        languages: codes.
        temperature: at least 1.
        weights: factors for the shares of some languages.
        is_drawn: which rows may be drawn, bool (rows,); all by default.

    Example:
        >>> mix = LanguageMix(np.array([0] * 90 + [1] * 10, np.uint8), ["en", "zh"], temperature=2.0)
        >>> {code: round(share, 2) for code, share in mix.shares.items()}
        {'en': 0.75, 'zh': 0.25}
    """

    def __init__(
        self,
        language: np.ndarray,
        languages: list[str],
        temperature: float = 1.0,
        weights: dict[str, float] | None = None,
        is_drawn: np.ndarray | None = None,
    ) -> None:
        # Rows by language, so that drawing needs no search.
        rows = [_rows_of(number, language, is_drawn) for number in range(len(languages))]
        self._rows = np.concatenate(rows)
        counts = np.array([len(each) for each in rows], np.float64)
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64))
        self._counts = torch.from_numpy(counts.astype(np.int64))
        shares = np.where(counts > 0, counts ** (1 / temperature), 0)
        shares *= np.array([(weights or {}).get(code, 1.0) for code in languages])
        self._shares = torch.from_numpy(shares / shares.sum())
        self.shares = {code: float(share) for code, share in zip(languages, self._shares, strict=True)}

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws rows with replacement, int64 (count,)."""
        language = torch.multinomial(self._shares, count, replacement=True, generator=generator)
        place = (torch.rand(count, generator=generator, dtype=torch.float64) * self._counts[language]).long()
        return torch.from_numpy(self._rows[(self._starts[language] + place).numpy()].astype(np.int64))


def _rows_of(number: int, language: np.ndarray, is_drawn: np.ndarray | None) -> np.ndarray:
    """The rows of a language, uint32. They are found in parts, because numpy's indices have 64 bits."""
    found = [np.empty(0, np.uint32)]
    for start in range(0, len(language), _ROWS_AT_ONCE):
        part = language[start : start + _ROWS_AT_ONCE] == number
        if is_drawn is not None:
            part &= is_drawn[start : start + _ROWS_AT_ONCE]
        found.append((start + np.flatnonzero(part)).astype(np.uint32))
    return np.concatenate(found)


def similar_lengths(lengths: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Chooses `count` rows of similar length, so that a batch has little padding.

    The rows are sorted and cut into blocks, and one block is drawn at random. So every row, length and language is
    equally likely.

    Args:
        lengths: int64 (rows,), a multiple of `count`.
        count: how many to choose.
        generator: for the step.

    Returns:
        Indices into `lengths`, int64 (count,), in random order.
    """
    by_length = lengths.argsort(stable=True)
    block = int(torch.randint(len(lengths) // count, (), generator=generator))
    chosen = by_length[block * count : (block + 1) * count]
    return chosen[torch.randperm(count, generator=generator)]
