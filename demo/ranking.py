"""Pictures against prompts, as numbers and as a table to look at."""

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from altdiffusion_clip.scoring import AltCLIPScorer


@dataclass(frozen=True)
class Comparison:
    """Pictures against prompts.

    Attributes:
        names: of the pictures, in the order of the first prompt's ranking.
        prompts: the columns.
        cosines: float (pictures, prompts), in [-1, 1].
        broken: a line for each picture that cannot be read.
    """

    names: list[str]
    prompts: list[str]
    cosines: np.ndarray
    broken: list[str]

    def as_csv(self) -> str:
        """A table with the unit in its first cell."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["picture (cosine)", *map(_no_formula, self.prompts)])
        for name, row in zip(self.names, self.cosines, strict=True):
            writer.writerow([_no_formula(name), *(f"{value:.6f}" for value in row)])
        return out.getvalue()

    def as_html(self) -> str:
        """A table whose cells are the stronger in colour the better, within each column."""
        head = "".join(f'<th scope="col" dir="auto">{html.escape(prompt)}</th>' for prompt in self.prompts)
        low, high = self.cosines.min(0), self.cosines.max(0)
        rows = []
        for name, cosines in zip(self.names, self.cosines, strict=True):
            cells = []
            for value, least, most in zip(cosines, low, high, strict=True):
                share = (value - least) / (most - least) if most > least else 1.0
                cells.append(f'<td style="background: rgb(22 120 180 / {0.08 + 0.6 * share:.2f})">{value:.3f}</td>')
            rows.append(f'<tr><th scope="row" dir="auto">{html.escape(name)}</th>{"".join(cells)}</tr>')
        body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
        return f'<div class="table" tabindex="0"><table>{body}</table></div>'


def compare(scorer: AltCLIPScorer, prompts: Sequence[str], paths: Sequence[Path]) -> Comparison:
    """Scores every picture against every prompt, best of the first prompt first."""
    embeds, broken = scorer.encode_images(list(paths))
    bad = {image.index for image in broken}
    good = [place for place in range(len(paths)) if place not in bad]
    cosines = (embeds[good] @ scorer.encode_texts(list(prompts)).T).cpu().numpy()
    order = np.argsort(-cosines[:, 0], kind="stable") if len(good) else np.empty(0, int)
    lines = [f"{paths[image.index].name}: {image.reason}" for image in broken]
    return Comparison([paths[good[place]].name for place in order], list(prompts), cosines[order], lines)


def _no_formula(text: str) -> str:
    """A cell that spreadsheets show, and do not compute."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
