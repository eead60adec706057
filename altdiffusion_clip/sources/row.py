"""Rows, and cursors to the next row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import under

MOST_CHARACTERS = 100_000
"""Most characters of a text. Longer ones would be cut to 77 tokens anyway."""


@dataclass(frozen=True)
class Columns:
    """The names of a row's fields.

    Attributes:
        image: a path or URL; in Parquet also the encoded picture.
        text: to compare it with.
        language: of the text; optional.
        row_id: name of the row; optional, the default is its position.
    """

    image: str = "image"
    text: str = "text"
    language: str = "language"
    row_id: str = "id"


@dataclass(frozen=True)
class Row:
    """A picture and a text, or the row's error.

    Attributes:
        row_id: its id, or its position as `file:number`, from 0.
        image: the place of the picture, or its bytes.
        text: in any language.
        language: if the row has one.
        error: one line; empty if the row is usable.
        texts: all texts, if it has several; `text` is the first.
    """

    row_id: str
    image: Located | bytes | None = None
    text: str = ""
    language: str = ""
    error: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cursor:
    """The position of the next row.

    Attributes:
        row: its index in the source.
        offset: of its first byte, if the source can be read from there; otherwise None.
    """

    row: int = 0
    offset: int | None = None


FIRST = Cursor()
"""Before the first row."""

Read = tuple[Row, Cursor]
"""A row and the cursor after it."""


def row_of(record: Mapping[str, Any], place: str, columns: Columns, root: str) -> Row:
    """Turns a record of a table into a row."""
    given = field(record, columns.row_id)
    row_id = place if given is None or given == "" else str(given)
    image = field(record, columns.image)
    if isinstance(image, dict):  # as the `datasets` library writes pictures
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str) and image:
        image = Located(under(root, image))
    elif not isinstance(image, bytes) or not image:
        return Row(row_id, error=f"no {columns.image}")
    return checked(row_id, image, field(record, columns.text), field(record, columns.language))


def field(record: Mapping[str, Any], name: str) -> Any:
    """A field of a record. `a.b` is the field b of a, unless there is a field with the whole name.

    Example:
        >>> field({"a": {"b": 1}, "c.d": 2}, "a.b"), field({"a": {"b": 1}, "c.d": 2}, "c.d")
        (1, 2)
    """
    if name in record or "." not in name:
        return record.get(name)
    first, _, rest = name.partition(".")
    inner = record.get(first)
    return field(inner, rest) if isinstance(inner, Mapping) else None


def checked(row_id: str, image: Located | bytes, text: Any, language: Any) -> Row:
    """A row, or the error of its text. A list of texts means several captions of one picture."""
    said = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    texts = tuple(each for each in said if isinstance(each, str) and each.strip())
    if not texts:
        return Row(row_id, error="no text")
    longest = max(map(len, texts))
    if longest > MOST_CHARACTERS:
        return Row(row_id, error=f"a text of {longest} characters, where {MOST_CHARACTERS} are allowed")
    return Row(row_id, image, texts[0], str(language or ""), texts=texts if len(texts) > 1 else ())
