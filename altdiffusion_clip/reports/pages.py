"""The frame of an HTML page: one file that loads nothing else."""

import html
from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.files import write_text


def write_page(path: Path, title: str, what: str, body: Sequence[str]) -> None:
    """Writes a page, completely or not at all.

    Args:
        path: where to.
        title: plain text.
        what: what is measured and in which unit; plain text.
        body: HTML fragments.
    """
    head = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(what)}</p>"]
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join([*head, *body])))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ font-family: system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #111; background: #fff; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.published {{ color: #666; }}
small {{ display: block; color: #777; font-size: .75rem; }}
section {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; }}
figure img {{ width: 48%; margin-right: 1%; border-radius: .3rem; }}
figcaption {{ font-size: .85rem; unicode-bidi: plaintext; }}
.plot {{ max-width: 100%; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
