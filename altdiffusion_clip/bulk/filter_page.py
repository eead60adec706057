"""A page for choosing a threshold by eye: histograms by language, and pictures at quantiles."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from altdiffusion_clip.bulk.filtering import ALL
from altdiffusion_clip.bulk.scored_folder import ScoredFolder
from altdiffusion_clip.bulk.thresholds import order_statistics
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.reports.pages import write_page
from altdiffusion_clip.reports.plots import histograms, thumbnail
from altdiffusion_clip.sources.pictures import decode
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import Cursor, Row
from altdiffusion_clip.sources.rows import UnfinishedError, read_rows

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
BINS = 60
SHARDS = 5
"""Pictures come from the first shards, because reaching a picture in a tar means reading all before it."""


@dataclass(frozen=True)
class Shown:
    """A row to show.

    Attributes:
        quantile: of its score within its language.
        score: its own.
        row: the row, with its picture.
    """

    quantile: float
    score: float
    row: Row


def write_filter_page(
    path: Path, scores: ScoredFolder, judge: str, thresholds: Sequence[Mapping[str, float]], retries: Retries
) -> None:
    """Writes the page.

    Args:
        path: where to.
        scores: of a data set.
        judge: the judge whose scores to show; the first if empty.
        thresholds: the chosen thresholds by language; the first is drawn.
        retries: of each request for a picture.

    Raises:
        UserError: matplotlib is not installed, or no row has a score.
    """
    column = scores.column(judge)
    counts: dict[str, int] = {}
    for language, values in scores.of_languages(column):
        counts[language] = counts.get(language, 0) + len(values)
    if not sum(counts.values()):
        raise UserError("no row has a score")
    ends = order_statistics(
        lambda: ((ALL, values) for _, values in scores.of_languages(column)), {ALL: [0, sum(counts.values()) - 1]}
    )[ALL].values()
    edges = np.linspace(min(ends), max(ends) + 1e-6, BINS + 1)
    in_bins = {language: np.zeros(BINS) for language in sorted(counts)}
    for language, values in scores.of_languages(column):
        in_bins[language] += np.histogram(values, edges)[0]
    lines = {code: limit for limits in thresholds[:1] for code, limit in _for_each(limits, list(in_bins)).items()}
    name = scores.columns[column]
    body = ["<h2>Languages</h2>", histograms(edges.tolist(), {k: v.tolist() for k, v in in_bins.items()}, lines, name)]
    shown = _at_quantiles(scores, column, retries)
    for language in in_bins:
        title = html.escape(language or "no language")
        body.append(f"<h2>{title}</h2><p>{counts[language]} rows with a score</p>")
        body.append(f"<section>{''.join(_figure(each, name) for each in shown.get(language, ()))}</section>")
    what = f"{name}: how its scores lie in each language, and rows at their quantiles, of the first {SHARDS} shards."
    write_page(path, "Scores", what, body)


def _for_each(limits: Mapping[str, float], languages: Sequence[str]) -> dict[str, float]:
    """Applies a threshold for all languages to each of them."""
    return dict.fromkeys(languages, limits[ALL]) if list(limits) == [ALL] else dict(limits)


def _at_quantiles(scores: ScoredFolder, column: int, retries: Retries) -> dict[str, list[Shown]]:
    """Rows of the first shards by language, the lowest score first."""
    wanted: dict[tuple[str, int], list[tuple[str, float, float]]] = {}  # by source and row
    of_language: dict[str, list[tuple[float, str, int]]] = {}
    for shard in scores.shards[:SHARDS]:
        rows = scores.read(shard)
        first = 0
        for span in shard.spans:
            for place in range(span.count):
                value = rows["scores"][first + place, column]
                if np.isfinite(value):
                    at = (float(value), span.source, span.start + place)
                    of_language.setdefault(rows["language"][first + place], []).append(at)
            first += span.count
    for language, found in of_language.items():
        found.sort()
        for quantile in QUANTILES:
            score, source, number = found[round(quantile * (len(found) - 1))]
            wanted.setdefault((source, number), []).append((language, quantile, score))
    shown: dict[str, list[Shown]] = {language: [] for language in of_language}
    for key, row in _rows(scores, sorted(wanted), retries):
        for language, quantile, score in wanted[key]:
            shown[language].append(Shown(quantile, score, row))
    return {language: sorted(each, key=lambda one: one.quantile) for language, each in shown.items()}


def _rows(
    scores: ScoredFolder, wanted: Sequence[tuple[str, int]], retries: Retries
) -> Iterator[tuple[tuple[str, int], Row]]:
    for place in dict.fromkeys(source for source, _ in wanted):
        numbers = [row for source, row in wanted if source == place]
        rest = iter(numbers)
        following = next(rest, None)
        try:
            for number, (row, _) in enumerate(read_rows(scores.source(place), Cursor(numbers[0]), retries), numbers[0]):
                if number == following:
                    yield (place, number), row
                    following = next(rest, None)
                    if following is None:
                        break
        except (UserError, UnfinishedError):
            continue  # its rows are left out


def _figure(shown: Shown, name: str) -> str:
    try:
        picture = f'<img src="{thumbnail(decode(shown.row.image))}" alt="">' if shown.row.image else ""
    except ImageError as error:
        picture = f"<small>{html.escape(str(error))}</small>"
    said = f"<small>{name} {shown.score:.4f}, above {100 * shown.quantile:g}% of the rows</small>"
    return f"<figure>{picture}<figcaption>{html.escape(shown.row.text[:200])}{said}</figcaption></figure>"
