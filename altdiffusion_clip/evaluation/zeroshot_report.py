"""Writes zero-shot results as a page."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from altdiffusion_clip.reports.pages import write_page
from altdiffusion_clip.reports.plots import heat_map

_CONFUSED = 15


def write_html(
    path: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    confusions: Sequence[np.ndarray],
    class_names: Mapping[str, Sequence[str]],
) -> None:
    """Writes a page with a heat map of systems and languages, the figures, and the most confused classes.

    Args:
        path: where to.
        name: of the data set.
        rows: one per system and language, with `system`, `language`, `top1`, `top5`, `mean_per_class_recall`.
        confusions: the confusion matrix of each row, int64 (classes, classes).
        class_names: by language.

    Raises:
        UserError: matplotlib is not installed.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    codes = list(dict.fromkeys(row["language"] for row in rows))
    top1 = {(row["system"], row["language"]): row["top1"] for row in rows}
    values = [[top1[system, code] for code in codes] for system in systems]
    body = [heat_map(values, systems, codes, "top-1, %"), _figures(rows)]
    for row, confusion in zip(rows, confusions, strict=True):
        body.append(f"<h2>{html.escape(row['system'])}, {html.escape(row['language'])}</h2>")
        body.append(_confused(confusion, class_names[row["language"]]))
    write_page(path, name, "Zero-shot classification, in percent, by CLIP_benchmark's definitions.", body)


def _figures(rows: Sequence[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["<tr>" + "".join(f"<th>{html.escape(column)}</th>" for column in columns) + "</tr>"]
    for row in rows:
        cells = ("" if value is None else html.escape(str(value)) for value in row.values())
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _confused(confusion: np.ndarray, names: Sequence[str]) -> str:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = wrong.ravel().argsort()[::-1][:_CONFUSED]
    lines = []
    for place in order:
        right, taken = divmod(int(place), len(names))
        count = wrong[right, taken]
        if count:
            share = 100 * count / confusion[right].sum()
            cells = (html.escape(names[right]), html.escape(names[taken]), str(count), f"{share:.1f}")
            lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    if not lines:
        return "<p>No class is taken for another.</p>"
    head = "<tr><th>class</th><th>taken for</th><th>images</th><th>% of the class</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"
