"""Finds the words of a prompt that emoji-m18 knows. It draws something for any prompt, so users must be told."""

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from altdiffusion_clip.emoji.concepts import Concept, Ground, concepts, grounds
from altdiffusion_clip.emoji.languages import LANGUAGES, language_of
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.weights import parse_weights

_ARABIC_VOWELS = re.compile("[\u064b-\u0652\u0670]")
_PLACE = re.compile(r"\{\w+\}")
_WORD = re.compile(r"[^\W\d_]+")
_SPACELESS = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")  # kana, Chinese characters, Thai
_SPACELESS_RUN = re.compile(f"{_SPACELESS.pattern}+")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_ENDING, _STEM = 2, 4
"""How many final letters inflection may change, and how many letters before them must match."""

_PARTICLES = frozenset("的了是はがのをにとで")
"""Filler words of languages without spaces, left over between known words."""

_AND = "و?"
"""Arabic prefixes, which are written together with the next word."""

_NOT_HERE = frozenset({"的"})
"""Words that are usually another word of another language: a Japanese target, the Chinese particle."""


@dataclass(frozen=True)
class Reading:
    """The contents of a prompt, as far as emoji-m18 knows its words.

    Attributes:
        things: the named things; if a word names two things in two languages, both.
        grounds: the named grounds.
        unknown: other words, in the order of the prompt.
    """

    things: tuple[Concept, ...]
    grounds: tuple[Ground, ...]
    unknown: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """English names of the things."""
        return tuple(thing.names["en"] for thing in self.things)

    @property
    def is_known(self) -> bool:
        """Whether the prompt names something that the model can draw, and nothing else."""
        return bool(self.things) and not self.unknown


def read(prompt: str) -> Reading:
    """Looks up the words of a prompt in all languages at once.

    Long phrases come first. A word may differ from a known one in its last letters, as cases and plurals do. A Korean
    word may have a particle.

    Args:
        prompt: in any language, with or without weights.

    Example:
        >>> [thing.names["en"] for thing in read("星空下的一只红狐狸").things]
        ['fox']
        >>> read("a castle on the moon with a knight").unknown
        ('knight',)
    """
    text = _plain(parse_weights(prompt).text)
    things: dict[int, Concept] = {}
    found_grounds: dict[int, Ground] = {}
    for phrase, meanings in _phrases():
        if phrase not in text:
            continue
        pattern = re.escape(phrase) if _SPACELESS.search(phrase) else rf"(?<!\w){_AND}{re.escape(phrase)}(?!\w)"
        text, count = re.subn(pattern, " ", text)
        for kind, index in meanings if count else ():
            if kind == "thing":
                things[index] = concepts()[index]
            elif kind == "ground":
                found_grounds[index] = grounds()[index]
    unknown: list[str] = []
    for word in _WORD.findall(text):
        known = _inflected(word)
        if known is not None and known >= 0:
            things[known] = concepts()[known]
        elif known is None and not _is_filler(word):
            unknown.append(word)
    return Reading(tuple(things.values()), tuple(found_grounds.values()), tuple(unknown))


def _plain(text: str) -> str:
    """A text without differences that do not matter: capitals, vowel signs, traditional and full-width characters."""
    text = unicodedata.normalize("NFKC", normalise(text)).casefold()
    text = _ARABIC_VOWELS.sub("", text).replace("’", "'")
    text = text.replace("ı", "i").replace("\u0307", "")  # Turkish has two letters i, each with its own capital
    # Words of different scripts are separate even without a space: 上にUFO.
    text = _SPACELESS_RUN.sub(r" \g<0> ", text.translate(_to_simplified()))
    return " ".join(text.split())


@functools.cache
def _to_simplified() -> dict[int, str]:
    path = resources.files(__package__).joinpath("traditional.json")
    return str.maketrans(json.loads(path.read_text(encoding="utf-8")))


@functools.cache
def _phrases() -> tuple[tuple[str, tuple[tuple[str, int], ...]], ...]:
    """All known phrases, the longest first, each with the kinds and indices of its meanings."""
    found: dict[str, set[tuple[str, int]]] = {}
    for phrase, kind, index in _all_phrases():
        plain = _plain(phrase)
        if plain and (plain not in _NOT_HERE or kind == "glue"):
            found.setdefault(plain, set()).add((kind, index))
    longest_first = sorted(found, key=lambda phrase: (-len(phrase), phrase))
    return tuple((phrase, tuple(sorted(found[phrase]))) for phrase in longest_first)


def _all_phrases() -> Iterator[tuple[str, str, int]]:
    for code in LANGUAGES:
        language = language_of(code)
        for concept in concepts():
            words = language.things[concept.code]
            said = [form for forms in words.names for form in forms]
            for form in (*said, *words.small, *words.big, *words.two, *words.three):
                yield form, "thing", concept.index
        for ground in grounds():
            for phrase in (*language.on[ground.name], *language.tags[ground.name]):
                yield phrase, "ground", ground.index
        for patterns in language.patterns.values():
            for pattern in patterns:
                for part in _PLACE.split(pattern):
                    glue = part.strip(" ,.:،、，")
                    if len(glue) > 1 or _SPACELESS.search(glue):
                        yield glue, "glue", -1
        for concept in concepts():
            words = language.things[concept.code]
            for small_or_big in (*words.small, *words.big):
                rest = small_or_big.replace(words.names[0][0], " ")
                for part in rest.split():
                    yield part, "glue", -1


@functools.cache
def _single_words() -> dict[str, list[tuple[str, int]]]:
    """Known words by their first three letters, with the index of the thing or -1."""
    found: dict[str, list[tuple[str, int]]] = {}
    for phrase, meanings in _phrases():
        for kind, index in meanings:
            if " " not in phrase and not _SPACELESS.search(phrase):
                found.setdefault(phrase[:3], []).append((phrase, index if kind == "thing" else -1))
            elif kind != "thing":
                for word in phrase.split():
                    found.setdefault(word[:3], []).append((word, -1))
    return found


def _inflected(word: str) -> int | None:
    """The index of the thing whose name a word is a form of; -1 for another known word, None for an unknown one."""
    is_korean = _HANGUL.search(word) is not None
    best: tuple[int, int] | None = None
    for known, index in _single_words().get(word[:3], ()) if not is_korean else _korean_words():
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(word, known, strict=False)))
        least = len(known) if is_korean else _STEM
        if common >= max(least, max(len(word), len(known)) - _ENDING) and (best is None or common > best[0]):
            best = common, index
    return None if best is None else best[1]


@functools.cache
def _korean_words() -> list[tuple[str, int]]:
    return [
        (phrase, index if kind == "thing" else -1)
        for phrase, meanings in _phrases()
        for kind, index in meanings
        if _HANGUL.search(phrase) and " " not in phrase
    ]


def _is_filler(word: str) -> bool:
    """Whether a word is too short to name anything: articles, prepositions and particles in scripts with spaces."""
    if _SPACELESS.search(word):
        return all(character in _PARTICLES for character in word)
    return len(word) <= (1 if _HANGUL.search(word) else 3)
