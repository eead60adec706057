"""Normalises text, so that what looks the same is the same to the model."""

import re
import unicodedata

_INVISIBLE = re.compile(
    "["
    "\u00ad"  # soft hyphen
    "\u0640"  # Arabic tatweel, which only lengthens a word
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks
    "\u200b\u2060\ufeff"  # zero-width spaces and joiners
    "]"
)

_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """Composes decomposed letters and removes invisible marks.

    macOS decomposes Korean and Japanese, and web pages and chats add direction marks and soft hyphens. To XLM-R's
    tokenizer, all of these are different tokens. Joiners that shape words (as in Hindi) or emoji stay.

    Example:
        >>> normalise("back\u00adground")
        'background'
        >>> normalise(unicodedata.normalize("NFD", "고양이")) == "고양이"
        True
    """
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", without_surrogates(text)))


def without_surrogates(text: str) -> str:
    """Replaces halves of surrogate pairs by U+FFFD. They are no characters, so they cannot be tokenised or written.

    JSON may hold them, because some programs cut texts in the middle of an emoji.

    Example:
        >>> without_surrogates("a cat " + chr(0xD83D)) == "a cat " + chr(0xFFFD)
        True
    """
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
