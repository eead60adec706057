"""Shows pictures side by side: contact sheets and HTML pages."""

import functools
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from altdiffusion_clip.drawing.log import group_of
from altdiffusion_clip.drawing.packing import is_packed
from altdiffusion_clip.files import atomic_path, write_text
from altdiffusion_clip.images import load_image

THUMBNAIL = 192
"""The longer side of thumbnails, in pixels. Smaller pictures need none."""
THUMBNAILS = "thumbnails"
INDEX = "index.html"
SHEET_ROWS, SHEET_COLUMNS, MOST_SHEETS = 40, 8, 20
PAGE_PICTURES, TABLE_ROWS = 1000, 100

_LABEL, _WORDS, _GAP = 22, 26, 8
_CELL, _SMALL_CELL, _FEW = THUMBNAIL, 128, 64
"""Sizes of the pictures on a sheet of up to `_FEW` pictures, and of more."""
_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "PingFang.ttc", "msyh.ttc", "Hiragino Sans GB.ttc",
    "wqy-zenhei.ttc", "WenQuanYi Zen Hei.ttf", "malgun.ttf", "meiryo.ttc", "NotoNaskhArabic-Regular.ttf",
    "NotoSansThai-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "DejaVuSans.ttf",
)  # fmt: skip
"""File names of system fonts. Pillow finds them."""

Row = dict[str, Any]
Section = tuple[str, str, Sequence[tuple[Path, str]]]
"""A heading, its replacement if no font has its letters, and pictures with labels."""


def shown_score(score: Mapping[str, Any]) -> str:
    """Formats a row's score for people: its measure, the number, and those of other judges.

    Example:
        >>> shown_score({"cosine": 0.25, "clip_score": 25.0, "judges": {"sharpness": 7.0}})
        'cosine 0.250, sharpness 7.000'
    """
    measure = "cosine" if "cosine" in score else "score"
    others = score.get("judges", {})
    return ", ".join(f"{name} {value:.3f}" for name, value in {measure: score[measure], **others}.items())


def write_pages(folder: Path, groups: Iterable[Sequence[Row]]) -> None:
    """Writes contact sheets and pages of a folder's results, split into parts of a reasonable size.

    Args:
        folder: of the pictures. It gets `contact-sheet.png`, `contact-sheet-2.png`, ..., at most `MOST_SHEETS`;
            `index.html`, `index-2.html`, ..., with all pictures; and for several languages `table.html`, with a row for
            each prompt and a column for each language.
        groups: rows, the best of each first.
    """
    shown = ([row for row in group if row["file"] and _small(folder, row).is_file()] for group in groups)
    sheet: list[Sequence[Row]] = []
    page: list[Sequence[Row]] = []
    sheets = pages = 0
    table = _Table(folder)
    for group in filter(None, shown):
        table.add(group)
        if sheet and _lines([*sheet, group]) > SHEET_ROWS and sheets < MOST_SHEETS:
            sheets += 1
            _write_sheet(folder, sheets, sheet)
            sheet = []
        if page and sum(map(len, page)) + len(group) > PAGE_PICTURES:
            pages += 1
            _write_page(folder, pages, page)
            page = []
        if sheets < MOST_SHEETS:
            sheet.append(group)
        page.append(group)
    if sheet:
        _write_sheet(folder, sheets + 1, sheet)
    if page:
        _write_page(folder, pages + 1, page)
    _link_pages(folder, pages + 1, table.write())


def write_contact_sheet(path: Path, pictures: Sequence[tuple[Path, str]], columns: int = SHEET_COLUMNS) -> None:
    """Writes one picture that shows all pictures in the given order, each with a label below.

    Args:
        path: of the file; the suffix decides the format.
        pictures: files and labels.
        columns: pictures per row, at most.
    """
    columns = max(1, min(columns, len(pictures)))
    _draw_sheet(path, [("", "", pictures)], columns)


def _write_sheet(folder: Path, number: int, groups: Sequence[Sequence[Row]]) -> None:
    columns = SHEET_COLUMNS
    if _is_grid(groups):
        pictures = [(_small(folder, row), _words(row)) for (row,) in groups]
        sections: list[Section] = [("", "", pictures)]
        columns = min(columns, len(pictures))
    else:
        columns = min(columns, max(map(len, groups)))
        sections = [
            (_words(group[0]), group_of(group[0]), [(_small(folder, row), _label(row)) for row in group])
            for group in groups
        ]
    _draw_sheet(folder / f"contact-sheet{_part(number)}.png", sections, columns)


def _is_grid(groups: Sequence[Sequence[Row]]) -> bool:
    """Whether prompts with one picture each can share a row."""
    return len(groups) > 1 and all(len(group) == 1 for group in groups)


def _label(row: Row) -> str:
    return _mark(row) if row["score"] is None else f"{row['rank'] or ''}  {shown_score(row['score'])}"


def _mark(row: Row) -> str:
    """What distinguishes a picture from others of its group: its seed, and what is varied."""
    if "name" not in row:
        return f"seed {row['seed']}"
    return str(row["name"]).removeprefix(f"{group_of(row)}-").replace("-", ", ").replace("seed", "seed ")


def _words(row: Row) -> str:
    return row["prompt"] if not row.get("language") else f"{row['language']}: {row['prompt']}"


def _small(folder: Path, row: Row) -> Path:
    """The thumbnail of a row, or the picture itself if it has none. A packed picture always has one."""
    small = folder / (row.get("thumbnail") or Path(THUMBNAILS, row["file"]).with_suffix(".webp"))
    return small if small.is_file() else folder / row["file"]


def _lines(groups: Sequence[Sequence[Row]]) -> int:
    if _is_grid(groups):
        return -(-len(groups) // SHEET_COLUMNS)
    return sum(-(-len(group) // SHEET_COLUMNS) for group in groups)


def _draw_sheet(path: Path, sections: Sequence[Section], columns: int) -> None:
    cell = _CELL if sum(len(pictures) for _, _, pictures in sections) <= _FEW else _SMALL_CELL
    height = _GAP
    for words, _, pictures in sections:
        height += (_WORDS if words else 0) + -(-len(pictures) // columns) * (cell + _LABEL + _GAP)
    sheet = Image.new("RGB", (columns * (cell + _GAP) + _GAP, height), "white")
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for words, name, pictures in sections:
        if words:
            said = words if _font_for(words, 15) else name
            font = _font_for(said, 15) or _own_font(15)
            draw.text((_GAP, top), _fitting(said, font, sheet.width - 2 * _GAP), fill="black", font=font)
            top += _WORDS
        for line in _batched(pictures, columns):
            for place, (file, label) in enumerate(line):
                left = _GAP + place * (cell + _GAP)
                image = load_image(file)
                scale = cell / max(image.size)
                # Sharp pixels when enlarging, smooth when reducing.
                filtering = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
                size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
                image = image.resize(size, filtering)
                sheet.paste(image, (left + (cell - image.width) // 2, top + (cell - image.height) // 2))
                font = _font_for(label, 13) or _own_font(13)
                draw.text((left, top + cell + 4), _fitting(label, font, cell), fill="black", font=font)
            top += cell + _LABEL + _GAP
    with atomic_path(path) as temporary:
        sheet.save(temporary, compress_level=1)  # for PNG: a sheet is large and easily made again


def _batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _fitting(text: str, font: Any, width: int) -> str:
    """Cuts a text to a width in pixels."""
    text = " ".join(text.split())
    while len(text) > 1 and font.getlength(text) > width:
        text = text[: int(len(text) * 0.9) - 1] + "…"
    return text


@functools.lru_cache(maxsize=512)
def _font_for(text: str, size: int) -> Any:
    """A font with the letters of a text, Pillow's own or a system font; None if there is none."""
    if text.isascii():
        return _own_font(size)
    for font in _system_fonts(size):
        missing = bytes(font.getmask("\uffff"))
        letters = sorted({letter for letter in text if letter.isalpha()})
        if all(bytes(font.getmask(letter)) != missing for letter in letters[:40]):
            return font
    return None


@functools.cache
def _own_font(size: int) -> Any:
    """Pillow's own font, with Latin letters."""
    return ImageFont.load_default(size)


@functools.cache
def _system_fonts(size: int) -> list[Any]:
    found = []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return found


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
img {{ width: 100%; border-radius: .5rem; }}
.small {{ image-rendering: pixelated; }}
figcaption {{ font-size: .85rem; line-height: 1.5; overflow-wrap: anywhere; }}
h2 {{ unicode-bidi: plaintext; }}
nav {{ margin: 2rem 0; }}
.warning {{ border-inline-start: .25rem solid #d97706; padding-inline-start: .75rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .8rem; }}
th, td {{ padding: .4rem; vertical-align: top; text-align: start; overflow-wrap: anywhere; }}
th, td {{ min-width: 5rem; max-width: 9rem; }}
tr > :first-child {{ position: sticky; inset-inline-start: 0; background: Canvas; }}
td img {{ width: 7rem; }}
</style>
</head>
<body>
<h1>altdiffusion</h1>
{body}
</body>
</html>
"""

_LINKS = "<!-- links -->"
_PIXELATED = 128
"""Pictures of up to so many pixels are enlarged with sharp edges."""


def _write_page(folder: Path, number: int, groups: Sequence[Sequence[Row]]) -> None:
    body = []
    for group in groups:
        prompt = _words(group[0])
        body.append(f'<h2 dir="auto">{html.escape(prompt)}</h2>')
        if group[0].get("warning"):
            body.append(f'<p class="warning">{html.escape(group[0]["warning"])}</p>')
        body.append("<section>")
        body += [_figure(folder, row) for row in group]
        body.append("</section>")
    write_text(folder / f"index{_part(number)}.html", _PAGE.format(body="\n".join([*body, _LINKS])))


def _link_pages(folder: Path, count: int, tables: int) -> None:
    """Adds links to the other pages to each page, now that their number is known."""
    for number in range(1, count + 1):
        path = folder / f"index{_part(number)}.html"
        others = [(f"index{_part(number - 1)}", "previous")] if number > 1 else []
        others += [(f"index{_part(number + 1)}", "next")] if number < count else []
        others += [("table", "by language")] if tables else []
        links = " · ".join(f'<a href="{name}.html">{said}</a>' for name, said in others)
        if path.is_file():
            page = path.read_text(encoding="utf-8")
            write_text(path, page.replace(_LINKS, f"<nav>{links}</nav>" if links else ""))


class _Table:
    """A page with a row for each prompt and a column for each language: the best picture, and the mean score.

    Args:
        folder: for it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cells: dict[str, dict[str, str]] = {}
        self._languages: dict[str, None] = {}

    def add(self, group: Sequence[Row]) -> None:
        """Adds the pictures of a prompt in a language, the best first."""
        language = group[0].get("language")
        if not language:
            return
        self._languages[language] = None
        best = group[0]
        measure = next((name for name in ("cosine", "score") if name in (best["score"] or {})), "")
        scores = [row["score"][measure] for row in group if row["score"]] if measure else []
        mean = f"mean {measure} {sum(scores) / len(scores):.3f}<br>" if scores else ""
        words = html.escape(best["prompt"])
        file = _link(self._folder, best)
        source = html.escape(_small(self._folder, best).relative_to(self._folder).as_posix(), quote=True)
        self._cells.setdefault(str(best.get("id") or group_of(best)), {})[language] = (
            f'<td><a href="{file}"><img loading="lazy" src="{source}" alt="{words}"></a><br>{mean}'
            f'<span dir="auto">{words}</span></td>'
        )

    def write(self) -> int:
        """Writes the pages if there are several languages, and returns their number."""
        if len(self._languages) < 2:
            return 0
        head = "".join(f'<th scope="col">{html.escape(language)}</th>' for language in self._languages)
        ids = list(self._cells)
        pages = -(-len(ids) // TABLE_ROWS)
        for number in range(1, pages + 1):
            rows = []
            for name in ids[(number - 1) * TABLE_ROWS : number * TABLE_ROWS]:
                cells = "".join(self._cells[name].get(language, "<td></td>") for language in self._languages)
                rows.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
            links = [("index", "all pictures")]
            links += [(f"table{_part(number - 1)}", "previous")] if number > 1 else []
            links += [(f"table{_part(number + 1)}", "next")] if number < pages else []
            said = " · ".join(f'<a href="{place}.html">{text}</a>' for place, text in links)
            table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            page = _PAGE.format(body=f'<nav>{said}</nav>\n<div class="wide">{table}</div>')
            write_text(self._folder / f"table{_part(number)}.html", page)
        return pages


def _link(folder: Path, row: Row) -> str:
    """The link target: the picture, or its thumbnail if it is packed."""
    file = _small(folder, row).relative_to(folder).as_posix() if is_packed(row["file"]) else row["file"]
    return html.escape(file, quote=True)


def _figure(folder: Path, row: Row) -> str:
    file, small = _link(folder, row), _small(folder, row)
    with Image.open(small) as image:
        kind = ' class="small"' if max(image.size) <= _PIXELATED else ""
    source = html.escape(small.relative_to(folder).as_posix(), quote=True)
    score = "" if row["score"] is None else f"#{row['rank']} · {html.escape(shown_score(row['score']))} · "
    about = html.escape(row["prompt"], quote=True)
    return (
        f'<figure><a href="{file}"><img{kind} loading="lazy" src="{source}" alt="{about}"></a>'
        f"<figcaption>{score}{html.escape(_mark(row))}<br>{html.escape(row['model'])}</figcaption></figure>"
    )


def _part(number: int) -> str:
    return "" if number == 1 else f"-{number}"
