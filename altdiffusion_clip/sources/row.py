"""What a row is, and where the next one begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import under

MOST_CHARACTERS = 100_000
"""Of a text: whole books would only be cut to 77 tokens."""


@dataclass(frozen=True)
class Columns:
    """What the fields of a row are called.

    Attributes:
        image: a path or URL; in Parquet also the encoded picture itself.
        text: what it is compared with.
        language: of the text; may be missing.
        row_id: what the row is called; its place if missing.
    """

    image: str = "image"
    text: str = "text"
    language: str = "language"
    row_id: str = "id"


@dataclass(frozen=True)
class Row:
    """A picture and a text, or what is wrong with the row.

    Attributes:
        row_id: its id, or its place: `file:number`, from 0.
        image: where the picture is, or its bytes.
        text: may be in any language.
        language: as the row has it.
        error: one line; empty if the row can be scored.
        texts: all of them, if it has several; `text` is the first.
    """

    row_id: str
    image: Located | bytes | None = None
    text: str = ""
    language: str = ""
    error: str = ""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cursor:
    """Where the next row begins.

    Attributes:
        row: its number in the source.
        offset: its first byte, where the source can be read from there; else None.
    """

    row: int = 0
    offset: int | None = None


FIRST = Cursor()
"""Before the first row."""

Read = tuple[Row, Cursor]
"""A row, and the cursor after it."""


def row_of(record: Mapping[str, Any], place: str, columns: Columns, root: str) -> Row:
    """The row that a record of a table is."""
    given = field(record, columns.row_id)
    row_id = place if given is None or given == "" else str(given)
    image = field(record, columns.image)
    if isinstance(image, dict):  # as `datasets` writes pictures
        image = image.get("bytes") or image.get("path")
    if isinstance(image, str) and image:
        image = Located(under(root, image))
    elif not isinstance(image, bytes) or not image:
        return Row(row_id, error=f"no {columns.image}")
    return checked(row_id, image, field(record, columns.text), field(record, columns.language))


def field(record: Mapping[str, Any], name: str) -> Any:
    """A field of a record; `a.b` is the field b of a, unless the record has a field of that whole name.

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
    """A row, or what is wrong with its text; a list of texts are several captions of one picture."""
    said = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    texts = tuple(each for each in said if isinstance(each, str) and each.strip())
    if not texts:
        return Row(row_id, error="no text")
    longest = max(map(len, texts))
    if longest > MOST_CHARACTERS:
        return Row(row_id, error=f"a text of {longest} characters, where {MOST_CHARACTERS} are allowed")
    return Row(row_id, image, texts[0], str(language or ""), texts=texts if len(texts) > 1 else ())
