"""Reads the small files of data sets: lines, JSON lines, and captions after a picture's name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.texts import parse_json

_FORMS = (
    re.compile(r"^(?P<name>[^\t]+)\t(?P<text>.*)$"),
    re.compile(r"^(?P<name>\S+?\.(?:jpe?g|png)),(?P<text>.*)$", re.IGNORECASE),
    re.compile(r"^(?P<name>\S+#\S+)\s+(?P<text>.*)$"),
)
_ENDING = re.compile(r"\.(?:jpe?g|png)$", re.IGNORECASE)


def lines(path: Path) -> list[str]:
    """Reads the lines of a UTF-8 file.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: it is not valid JSON.
    """
    try:
        return parse_json("\n".join(lines(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: line {error.lineno}: {error.msg}") from None


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads the objects of a JSON lines file with their line numbers.

    Raises:
        UserError: a line is not a JSON object.
    """
    for number, line in enumerate(lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON object is expected")
        yield number, row


def named_captions(path: Path) -> Iterator[tuple[str, str]]:
    """Reads captions that follow the name of their picture, as in the many versions of Flickr30k and COCO.

    These formats are supported: `1000.jpg,caption`, `1000.jpg#0<tab>caption`, `1000#zhm#0 caption`,
    `1000#0<tab>caption`, `1000<tab>caption`. A first line `image,caption` is skipped.

    Returns:
        Names without suffix, and captions.

    Raises:
        UserError: a line has another format.
    """
    for number, line in enumerate(lines(path), start=1):
        if not line.strip() or (number == 1 and line.strip().lower() in ("image,caption", "image\tcaption")):
            continue
        match = next((found for form in _FORMS if (found := form.match(line))), None)
        if match is None or not match["text"].strip():
            raise UserError(f"{path}, line {number}: the name of a picture and a caption are expected")
        yield _ENDING.sub("", match["name"].partition("#")[0].strip()), match["text"].strip()
