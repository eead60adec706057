"""The words of each language, from one JSON file per language.

A file has the forms for one of each thing, a small one, a big one, two and three; two kinds of phrases for each ground,
"on a blue background" and "blue background"; and patterns of sentences. All inflection is in the files, so another
language is just another file.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

LANGUAGES = ("en", "zh", "ja", "th", "ko", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr", "ru")
"""ISO 639-1 codes of AltDiffusion-m18's eighteen languages, in the order of its model card."""


@dataclass(frozen=True)
class Words:
    """The words for one thing in a language.

    Attributes:
        names: the forms of each word: bare, and with an article or a measure word if there is one. The everyday word
            comes first, then synonyms.
        small: phrases for a small one; empty if it is not countable.
        big: phrases for a big one.
        two: phrases for two of it.
        three: phrases for three of it.
    """

    names: tuple[tuple[str, ...], ...]
    small: tuple[str, ...] = ()
    big: tuple[str, ...] = ()
    two: tuple[str, ...] = ()
    three: tuple[str, ...] = ()


@dataclass(frozen=True)
class Language:
    """All words of a language.

    Attributes:
        code: of `LANGUAGES`.
        things: by the concept's code.
        on: the phrases of each ground for `patterns["on"]`.
        tags: the phrases of each ground for `patterns["tag"]`.
        patterns: of sentences: "alone", "on" and "tag" with {thing} and {ground}; "pair", "beside" and "above" with
            {first} and {second}.
    """

    code: str
    things: Mapping[str, Words]
    on: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, tuple[str, ...]]
    patterns: Mapping[str, tuple[str, ...]]


@functools.cache
def language_of(code: str) -> Language:
    """Reads a language.

    Args:
        code: of `LANGUAGES`.

    Raises:
        KeyError: there is no such language.

    Example:
        >>> language_of("de").things["1f431"].names[0]
        ('Katze', 'eine Katze')
    """
    if code not in LANGUAGES:
        raise KeyError(f"no captions in {code!r}; choose one of {', '.join(LANGUAGES)}")
    path = resources.files(__package__).joinpath("languages", f"{code}.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    return Language(
        code=code,
        things={
            key: Words(
                tuple(tuple(forms) for forms in words["names"]),
                *(tuple(words.get(field, ())) for field in ("small", "big", "two", "three")),
            )
            for key, words in data["things"].items()
        },
        on={name: tuple(phrases["on"]) for name, phrases in data["grounds"].items()},
        tags={name: tuple(phrases["tag"]) for name, phrases in data["grounds"].items()},
        patterns={name: tuple(patterns) for name, patterns in data["patterns"].items()},
    )
