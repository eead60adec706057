"""Writes the results for drawn pictures as a page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altdiffusion_clip.evaluation.generation import Drawn
from altdiffusion_clip.images import load_image
from altdiffusion_clip.reports.pages import write_page
from altdiffusion_clip.reports.plots import bars, heat_map, thumbnail

_SCENES = 12


def write_html(path: Path, rows: Sequence[dict[str, Any]], drawn: Sequence[Drawn]) -> None:
    """Writes a page with scores by system and language, gaps with intervals, and the first scenes in all languages.

    Args:
        path: where to.
        rows: `GenerationResult`s as dictionaries, with `system`.
        drawn: the pictures.

    Raises:
        UserError: matplotlib is not installed.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    codes = list(dict.fromkeys(row["language"] for row in rows))
    of = {(row["system"], row["language"]): row for row in rows}
    scores = [[of[system, code]["clip_score"] for code in codes] for system in systems]
    body = [heat_map(scores, systems, codes, "CLIP score with its own prompt")]
    if all(row["gap"] is not None for row in rows):
        gaps = [[of[system, code]["gap"] for code in codes] for system in systems]
        ends = [[tuple(of[system, code]["interval_95"]) for code in codes] for system in systems]
        body.append(bars(gaps, ends, systems, codes, "points behind English"))
    body.append("<h2>Pictures</h2>")
    body.append(_pictures(drawn, codes))
    what = (
        "CLIP score, 100 max(cosine, 0), of drawn pictures; points behind English are of the English prompts of the "
        "same scenes, with 95% intervals by bootstrap over the scenes."
    )
    write_page(path, "Drawn pictures by language", what, body)


def _pictures(drawn: Sequence[Drawn], codes: Sequence[str]) -> str:
    first: dict[tuple[str, str], Drawn] = {}
    for picture in drawn:
        first.setdefault((picture.scene.key, picture.language), picture)
    keys = list(dict.fromkeys(picture.scene.key for picture in drawn))[:_SCENES]
    lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(code)}</th>" for code in codes) + "</tr>"]
    for key in keys:
        cells = []
        for code in codes:
            shown = first.get((key, code))
            if shown is None:
                cells.append("<td></td>")
                continue
            prompt = html.escape(shown.scene.prompts[code])
            source = thumbnail(load_image(shown.file))
            cells.append(f'<td><img src="{source}" alt="{prompt}" title="{prompt}"></td>')
        lines.append(f"<tr><td>{html.escape(key)}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"
