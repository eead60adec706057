"""The words of each language: a JSON file each, read once.

A file holds, for every thing, the ways to say one of it, a small and a big one, two and three; for every ground two
kinds of phrases, "on a blue background" and "blue background"; and the patterns that sentences are made of. All
inflection is in the files, so that another language is another file.
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
    """How a language says one thing.

    Attributes:
        names: for each word for it, its forms: bare, and with an article or a measure word where there is one. The
            everyday word is first, the others are synonyms.
        small: ways to say a small one; empty if it is not counted.
        big: ways to say a big one.
        two: ways to say two of it.
        three: ways to say three of it.
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
        things: by the code of the concept.
        on: for each ground the phrases that go with `patterns["on"]`.
        tags: for each ground the phrases that go with `patterns["tag"]`.
        patterns: of sentences: "alone", "on" and "tag" with places for {thing} and {ground}; "pair", "beside" and
            "above" with places for {first} and {second}.
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
