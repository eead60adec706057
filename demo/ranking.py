"""Scores of pictures and prompts, as numbers and as an HTML table."""

import base64
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from altdiffusion_clip.demo.texts import say
from altdiffusion_clip.images import load_image
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import judge_all
from altdiffusion_clip.sources.pictures import Located

_THUMBNAIL = 48
"""Side of a thumbnail, in pixels."""

_LEAST_SPAN = 0.25
"""The share of a judge's whole range of scores that the full range of colours stands for in a column."""


@dataclass(frozen=True)
class Comparison:
    """Scores of pictures and prompts.

    Attributes:
        names: of the pictures, ordered by the first judge and the first prompt.
        prompts: that they were judged by.
        judges: name and measure of each judge: "cosine", in [-1, 1], or "score", without a unit.
        scores: float (judges, pictures, prompts).
        broken: one line per picture that cannot be read.
        thumbnails: as data URLs, in the order of `names`.
    """

    names: list[str]
    prompts: list[str]
    judges: list[tuple[str, str]]
    scores: np.ndarray
    broken: list[str]
    thumbnails: list[str]

    def as_csv(self) -> str:
        """The scores as CSV, with the unit in the first row."""
        out = io.StringIO()
        writer = csv.writer(out)
        if len(self.judges) == 1:
            writer.writerow([f"picture ({self.judges[0][1]})", *map(_no_formula, self.prompts)])
        else:
            heads = [f"{prompt} [{name}, {measure}]" for prompt in self.prompts for name, measure in self.judges]
            writer.writerow(["picture", *map(_no_formula, heads)])
        for name, row in zip(self.names, self._columns(), strict=True):
            writer.writerow([_no_formula(name), *(f"{value:.6f}" for value in row)])
        return out.getvalue()

    def as_html(self, language: str = "en") -> str:
        """The scores as an HTML table with thumbnails. The better a cell is within its column, the stronger its colour.

        A column whose scores hardly differ stays pale, because colours are on the judge's scale.
        """
        units = [f"{html.escape(name)}<br><small>{measure}</small>" for name, measure in self.judges]
        span = f' colspan="{len(units)}"' if len(units) > 1 else ""
        heads = "".join(f'<th scope="col"{span} dir="auto">{html.escape(prompt)}</th>' for prompt in self.prompts)
        head = f"<tr><th>{units[0] if not span else ''}</th>{heads}</tr>"
        if span:
            head += (
                "<tr><th></th>"
                + "".join(f'<th scope="col">{unit}</th>' for unit in units * len(self.prompts))
                + "</tr>"
            )
        columns = self._columns()
        low, high = columns.min(0), columns.max(0)
        # per judge, over all its columns
        scales = np.tile(np.ptp(self.scores, axis=(1, 2)), len(self.prompts))
        star = f'<span role="img" aria-label="{say("best", language)}">★</span> '
        rows = []
        for name, picture, scores in zip(self.names, self.thumbnails, columns, strict=True):
            cells = []
            for value, least, most, scale in zip(scores, low, high, scales, strict=True):
                share = (value - least) / max(most - least, _LEAST_SPAN * scale, 1e-9)
                mark = star if value == most and len(columns) > 1 else ""
                cells.append(f'<td style="--share: {share:.2f}">{mark}{value:.3f}</td>')
            shown = f'<img src="{picture}" alt="" width="{_THUMBNAIL}" height="{_THUMBNAIL}">' if picture else ""
            rows.append(
                f'<tr><th scope="row" dir="auto"><div>{shown}<span>{html.escape(name)}</span></div></th>'
                f"{''.join(cells)}</tr>"
            )
        return (
            f'<div class="table" tabindex="0"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
        )

    def _columns(self) -> np.ndarray:
        """The scores for each prompt and judge, float (pictures, prompts x judges)."""
        return self.scores.transpose(1, 2, 0).reshape(len(self.names), -1)


def compare(bench: Bench, prompts: Sequence[str], paths: Sequence[Path]) -> Comparison:
    """Scores every picture with every prompt, ordered by the first judge and the first prompt."""
    judged, broken = judge_all(prompts, [Located(str(path)) for path in paths], bench)
    scores = judged.numpy().transpose(0, 2, 1)
    good = np.flatnonzero(np.isfinite(scores).all((0, 2)))
    order = good[np.argsort(-scores[0, good, 0], kind="stable")]
    judges = [(column.name, column.measure) for column in bench.panel.columns]
    lines = [f"{paths[place].name}: {reason}" for place, reason in broken]
    names = [paths[place].name for place in order]
    small = [_thumbnail(paths[place]) for place in order]
    return Comparison(names, list(prompts), judges, scores[:, order], lines, small)


def _thumbnail(path: Path) -> str:
    picture = load_image(str(path), at_least=2 * _THUMBNAIL)
    picture.thumbnail((2 * _THUMBNAIL, 2 * _THUMBNAIL))
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _no_formula(text: str) -> str:
    """Escapes a cell, so that spreadsheets do not run it as a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
