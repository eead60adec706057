"""Reports retrieval results beside published ones: for the terminal, as JSON, and as a page."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altdiffusion_clip.evaluation.bench import Measured
from altdiffusion_clip.evaluation.datasets.task import RetrievalTask
from altdiffusion_clip.evaluation.published import published_for, published_of
from altdiffusion_clip.evaluation.tables import table
from altdiffusion_clip.files import write_text
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.reports.pages import write_page
from altdiffusion_clip.reports.plots import bars, heat_map, thumbnail
from altdiffusion_clip.sources.pictures import decode

_SHORT = {
    "text_to_image_r1": "T2I R@1",
    "text_to_image_r5": "T2I R@5",
    "text_to_image_r10": "T2I R@10",
    "image_to_text_r1": "I2T R@1",
    "image_to_text_r5": "I2T R@5",
    "image_to_text_r10": "I2T R@10",
    "mr": "MR",
}


def as_text(task: RetrievalTask, measured: Sequence[Measured]) -> str:
    """A table per language, with published figures below the measured ones."""
    parts = []
    for code in task.languages:
        rows: list[dict[str, Any]] = []
        for row in (m for m in measured if m.language == code):
            low, high = row.intervals["mr"]
            figures = {_SHORT[key]: value for key, value in row.figures.as_dict().items()}
            rows.append({"system": row.system, **figures, "95%": f"{low:.1f}-{high:.1f}", "published": ""})
            theirs = published_of(row.system, task.name, code)
            if theirs is not None:
                own = row.figures.as_dict()
                differences = {_SHORT[k]: f"{own[k] - v:+.1f}" for k, v in theirs.figures.items()}
                blank = {short: differences.get(short, "") for short in _SHORT.values()}
                rows.append({"system": f"minus {theirs.system}", **blank, "95%": "", "published": "difference"})
        for other in published_for(task.name, code):
            known = {short: dict[str, Any](other.figures).get(key, "") for key, short in _SHORT.items()}
            rows.append({"system": other.system, **known, "95%": "", "published": "published"})
        if not any(row["published"] for row in rows):
            rows = [{key: value for key, value in row.items() if key != "published"} for row in rows]
        language = task.languages[code]
        title = f"{task.name}, {code}: {len(language.texts)} texts, {len(language.images)} images, percent"
        parts.append(table(title, rows))
    return "\n".join(parts)


def as_json(task: RetrievalTask, measured: Sequence[Measured]) -> dict[str, Any]:
    """All results as JSON: measured rows, and published rows with the difference if there is one."""
    rows = []
    for row in measured:
        entry = {"dataset": task.name, **row.as_dict()}
        theirs = published_of(row.system, task.name, row.language)
        if theirs is not None:
            own = row.figures.as_dict()
            entry["published"] = {
                "system": theirs.system,
                "source": theirs.source,
                "figures": theirs.figures,
                "difference": {key: round(own[key] - value, 2) for key, value in theirs.figures.items()},
            }
        rows.append(entry)
    published = [
        {"language": code, "system": row.system, "source": row.source, "figures": row.figures}
        for code in task.languages
        for row in published_for(task.name, code)
    ]
    return {"dataset": task.name, "unit": "percent", "measured": rows, "published": published}


def write_html(path: Path, task: RetrievalTask, measured: Sequence[Measured]) -> None:
    """Writes one self-contained page: tables, a heat map of languages, intervals, and failures with pictures.

    Raises:
        UserError: matplotlib is not installed.
    """
    systems = list(dict.fromkeys(row.system for row in measured))
    codes = list(task.languages)
    of = {(row.system, row.language): row for row in measured}
    mean = [[of[system, code].figures.mr for code in codes] for system in systems]
    ends = [[of[system, code].intervals["mr"] for code in codes] for system in systems]
    body = [
        "<h2>Languages</h2>",
        heat_map(mean, systems, codes, "mean recall, %"),
        bars(mean, ends, systems, codes, "mean recall, %"),
    ]
    for code in codes:
        body.append(f"<h2>{html.escape(code)}</h2>")
        body.append(_table(task, [of[system, code] for system in systems], code))
        body += [_failures(task, of[system, code]) for system in systems]
    what = (
        "Retrieval both ways, in percent. MR is the mean of the six recalls; intervals are 95%, by bootstrap over the "
        f"images. {len(task.images)} images."
    )
    write_page(path, task.name, what, body)


def write_json(path: Path, task: RetrievalTask, measured: Sequence[Measured]) -> None:
    """Writes the results as a JSON file."""
    write_text(path, json.dumps(as_json(task, measured), ensure_ascii=False, indent=1) + "\n")


def _table(task: RetrievalTask, rows: Sequence[Measured], code: str) -> str:
    lines = ["<tr><th>system</th>" + "".join(f"<th>{short}</th>" for short in _SHORT.values()) + "</tr>"]
    for row in rows:
        theirs = published_of(row.system, task.name, code)
        cells = []
        for key, value in row.figures.as_dict().items():
            low, high = row.intervals[key]
            extra = f"<small>{low:.1f}–{high:.1f}</small>"
            if theirs is not None and key in theirs.figures:
                extra += f"<small>published {theirs.figures[key]:.1f} ({value - theirs.figures[key]:+.1f})</small>"
            cells.append(f"<td>{value:.1f}{extra}</td>")
        lines.append(f"<tr><td>{html.escape(row.system)}</td>{''.join(cells)}</tr>")
    for other in published_for(task.name, code):
        cells = [f"<td>{other.figures[key]:.1f}</td>" if key in other.figures else "<td></td>" for key in _SHORT]
        source = f"<small>{html.escape(other.source)}</small>"
        lines.append(f'<tr class="published"><td>{html.escape(other.system)}{source}</td>{"".join(cells)}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _failures(task: RetrievalTask, row: Measured) -> str:
    if not row.failures:
        return f"<p>{html.escape(row.system)}: every text found its image first.</p>"
    figures = []
    for failure in row.failures:
        pictures = "".join(
            f'<img src="{_picture(task, place)}" alt="{what}" title="{what}">'
            for place, what in ((failure.right, "its image"), (failure.found, "came first"))
        )
        figures.append(
            f"<figure>{pictures}<figcaption>{html.escape(failure.text)}<small>its image: cosine "
            f"{failure.score_right:.3f}, first: {failure.score_found:.3f}</small></figcaption></figure>"
        )
    return (
        f"<h3>{html.escape(row.system)}: texts whose image was not the first</h3>"
        f"<p>Left its image, right the one that came first; the first {len(figures)} of these texts.</p>"
        f"<section>{''.join(figures)}</section>"
    )


def _picture(task: RetrievalTask, place: int) -> str:
    try:
        return thumbnail(decode(task.images[place]))
    except ImageError:
        return ""
