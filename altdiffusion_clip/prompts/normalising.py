"""The same text to the eye is the same text to the model."""

import re
import unicodedata

_INVISIBLE = re.compile(
    "["
    "\u00ad"  # soft hyphen
    "\u0640"  # Arabic tatweel, which only stretches a word
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks of direction
    "\u200b\u2060\ufeff"  # spaces and joiners of no width
    "]"
)


def normalise(text: str) -> str:
    """Puts letters together that came in pieces, and takes out marks that cannot be seen.

    macOS hands over decomposed Korean and Japanese, pages and chats add marks of direction and soft hyphens; XLM-R's
    tokenizer makes other tokens of them. Joiners that shape words (as in Hindi) and emoji stay.

    Example:
        >>> normalise("back\u00adground")
        'background'
        >>> normalise(unicodedata.normalize("NFD", "고양이")) == "고양이"
        True
    """
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
