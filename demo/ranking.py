"""Pictures against prompts, as numbers and as a table to look at."""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import judge_all
from altdiffusion_clip.sources.pictures import Located


@dataclass(frozen=True)
class Comparison:
    """Pictures against prompts.

    Attributes:
        names: of the pictures, in the order of the first prompt's ranking.
        prompts: the columns.
        scores: float (pictures, prompts), by the first judge.
        broken: a line for each picture that cannot be read.
        measure: what the scores are: "cosine", in [-1, 1], or "score", of no unit.
    """

    names: list[str]
    prompts: list[str]
    scores: np.ndarray
    broken: list[str]
    measure: str = "cosine"

    def as_csv(self) -> str:
        """A table with the unit in its first cell."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow([f"picture ({self.measure})", *map(_no_formula, self.prompts)])
        for name, row in zip(self.names, self.scores, strict=True):
            writer.writerow([_no_formula(name), *(f"{value:.6f}" for value in row)])
        return out.getvalue()

    def as_html(self) -> str:
        """A table whose cells are the stronger in colour the better, within each column."""
        head = "".join(f'<th scope="col" dir="auto">{html.escape(prompt)}</th>' for prompt in self.prompts)
        low, high = self.scores.min(0), self.scores.max(0)
        rows = []
        for name, scores in zip(self.names, self.scores, strict=True):
            cells = []
            for value, least, most in zip(scores, low, high, strict=True):
                share = (value - least) / (most - least) if most > least else 1.0
                cells.append(f'<td style="background: rgb(22 120 180 / {0.08 + 0.6 * share:.2f})">{value:.3f}</td>')
            rows.append(f'<tr><th scope="row" dir="auto">{html.escape(name)}</th>{"".join(cells)}</tr>')
        body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        return f'<div class="table" tabindex="0"><table>{body}</table></div>'


def compare(bench: Bench, prompts: Sequence[str], paths: Sequence[Path]) -> Comparison:
    """Scores every picture against every prompt, best of the first prompt first."""
    scores, broken = judge_all(prompts, [Located(str(path)) for path in paths], bench)
    of_first_judge = scores[0].T.numpy()
    good = np.flatnonzero(np.isfinite(of_first_judge).all(1))
    order = good[np.argsort(-of_first_judge[good, 0], kind="stable")]
    lines = [f"{paths[place].name}: {reason}" for place, reason in broken]
    names, measure = [paths[place].name for place in order], bench.panel.columns[0].measure
    return Comparison(names, list(prompts), of_first_judge[order], lines, measure)


def _no_formula(text: str) -> str:
    """A cell that spreadsheets show, and do not compute."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
