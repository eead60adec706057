"""Rows with several captions: one score for each, or one for all."""

from collections.abc import Sequence
from dataclasses import replace

from altdiffusion_clip.judges.judging import Judged
from altdiffusion_clip.sources.row import Row

CAPTIONS = ("each", "first", "best", "mean")
"""How several captions of a row are scored: a row for each (`id#0`, `id#1`, ...), only the first, or the best score
or the mean of all, judge by judge."""


def captions_of(row: Row, captions: str) -> list[Row]:
    """Splits a row into rows with one caption each.

    Example:
        >>> [(each.row_id, each.text) for each in captions_of(Row("7", b"", "a", texts=("a", "b")), "each")]
        [('7#0', 'a'), ('7#1', 'b')]
    """
    if captions == "first" or len(row.texts) < 2:
        return [replace(row, texts=())] if row.texts else [row]
    ids = [f"{row.row_id}#{number}" if captions == "each" else row.row_id for number in range(len(row.texts))]
    return [replace(row, row_id=row_id, text=text, texts=()) for row_id, text in zip(ids, row.texts, strict=True)]


def together(judged: Sequence[Judged], captions: str) -> Judged:
    """Combines the results of the captions into the result of their row."""
    wrong = next((each for each in judged if each.error), None)
    if wrong is not None or len(judged) == 1:
        return wrong or judged[0]
    columns = zip(*(each.scores for each in judged), strict=True)
    if captions == "best":
        return Judged(tuple(max(column) for column in columns))
    return Judged(tuple(sum(column) / len(judged) for column in columns))
