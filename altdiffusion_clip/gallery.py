"""Pictures side by side: a contact sheet, and a page for the browser."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from altdiffusion_clip.files import atomic_path, write_text
from altdiffusion_clip.images import load_image

_CELL, _LABEL, _GAP = 192, 22, 8


def best_first(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a `results.jsonl`, prompt by prompt in their first order, the best of each first."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(row["prompt"] for row in rows))}
    return sorted(rows, key=lambda row: (places[row["prompt"]], row["rank"] or 0))


def shown_score(score: Mapping[str, Any]) -> str:
    """A row's score as people read it: what it is, its number, and those of other judges.

    Example:
        >>> shown_score({"cosine": 0.25, "clip_score": 25.0, "judges": {"sharpness": 7.0}})
        'cosine 0.250, sharpness 7.000'
    """
    measure = "cosine" if "cosine" in score else "score"
    others = score.get("judges", {})
    return ", ".join(f"{name} {value:.3f}" for name, value in {measure: score[measure], **others}.items())


def write_contact_sheet(path: Path, pictures: Sequence[tuple[Path, str]], columns: int = 8) -> None:
    """Writes one picture with all pictures, in the order given, a label below each.

    Args:
        path: where to; the suffix chooses the format.
        pictures: files and labels. Labels are in Latin letters: Pillow's own font has no others.
        columns: pictures in a row, at most.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    size = (columns * (_CELL + _GAP) + _GAP, rows * (_CELL + _LABEL + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for i, (file, label) in enumerate(pictures):
        left = _GAP + (i % columns) * (_CELL + _GAP)
        top = _GAP + (i // columns) * (_CELL + _LABEL + _GAP)
        image = load_image(file)
        scale = _CELL / max(image.size)
        # Enlarged pixels stay sharp; reductions are smoothed.
        filtering = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), filtering)
        sheet.paste(image, (left + (_CELL - image.width) // 2, top + (_CELL - image.height) // 2))
        draw.text((left, top + _CELL + 4), label, fill="black", font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>altdiffusion</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
section {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
img {{ width: 100%; image-rendering: pixelated; border-radius: .5rem; }}
figcaption {{ font-size: .85rem; line-height: 1.5; }}
h2 {{ unicode-bidi: plaintext; }}
</style>
</head>
<body>
<h1>altdiffusion</h1>
{body}
</body>
</html>
"""


def write_index(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a page that shows the rows of a `results.jsonl`, prompt by prompt, best first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in best_first(rows):
        groups.setdefault(row["prompt"], []).append(row)
    body = []
    for prompt, group in groups.items():
        body.append(f'<h2 dir="auto">{html.escape(prompt)}</h2>\n<section>')
        for row in group:
            file = html.escape(row["file"], quote=True)
            score = "" if row["score"] is None else f"#{row['rank']} · {html.escape(shown_score(row['score']))} · "
            body.append(
                f'<figure><a href="{file}"><img src="{file}" alt="{html.escape(prompt, quote=True)}"></a>'
                f"<figcaption>{score}seed {row['seed']}<br>{html.escape(row['model'])}</figcaption></figure>"
            )
        body.append("</section>")
    write_text(path, _PAGE.format(body="\n".join(body)))
