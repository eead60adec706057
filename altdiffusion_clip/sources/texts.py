"""Decodes text: UTF-8, what a byte-order mark says, or the encoding that the user names."""

import codecs
import json
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.prompts.normalising import without_surrogates

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes, named: str = "") -> str:
    """The encoding of a text: according to its byte-order mark, else the named one, else UTF-8.

    Example:
        >>> encoding_of("a".encode("utf-16")), encoding_of(b"a"), encoding_of(b"a", "gb18030")
        ('utf-16', 'utf-8', 'gb18030')
    """
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), named or "utf-8")


def decode(data: bytes, named: str = "") -> str:
    """Decodes a separate text, such as the one beside a picture.

    Raises:
        UnicodeDecodeError: it has another encoding.
    """
    return data.decode(encoding_of(data, named)).strip()


def parse_json(text: str) -> Any:
    """Parses JSON in which texts may have been cut in the middle of a character.

    Raises:
        ValueError: it is not JSON.
    """
    found = json.loads(text)
    return mend(found) if "\\u" in text else found


def mend(value: Any) -> Any:
    """A value of JSON, with `without_surrogates` applied to all texts in it."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [mend(each) for each in value]
    if isinstance(value, dict):
        return {mend(key): mend(each) for key, each in value.items()}
    return value


NOT_UTF8 = "not UTF-8; name its --encoding, such as gb18030 or utf-16"


def refuse(place: str, error: UnicodeDecodeError) -> UserError:
    """The message for a file in another encoding."""
    bad = error.object[error.start : error.start + 1].hex()
    return UserError(
        f"{place} is not {error.encoding.upper()} (byte 0x{bad}); name its --encoding, such as gb18030 or utf-16"
    )


def check_encoding(name: str) -> str:
    """Returns the name of an encoding if Python knows it.

    Raises:
        UserError: it is unknown.
    """
    try:
        codecs.lookup(name)
    except LookupError:
        raise UserError(f"there is no encoding {name!r}; give one such as utf-8, gb18030 or utf-16") from None
    return name
