"""What can be said of a scene, in eighteen languages, and how people type it.

A claim is what a sentence says: that of a picture of a big cat on blue "a cat" is true as well. Sentences are made of
the words and patterns of `languages`.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from altdiffusion_clip.emoji_m18.concepts import Concept, Ground, concepts
from altdiffusion_clip.emoji_m18.languages import LANGUAGES, language_of
from altdiffusion_clip.emoji_m18.scenes import Scene

CLAIM_KINDS = ("one", "small", "big", "pair", "beside", "above", "two", "three")
"""What is said of how many things, where: those of a scene, and "pair", which does not say where the two things are."""


@dataclass(frozen=True)
class Claim:
    """What a sentence says of a picture.

    Attributes:
        kind: of `CLAIM_KINDS`.
        things: one, or two in order.
        ground: None if nothing is said of it.
    """

    kind: str
    things: tuple[Concept, ...]
    ground: Ground | None = None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether a scene shows what is said."""
        if self.ground is not None and self.ground != scene.ground:
            return False
        if self.kind == "one":
            return scene.kind in ("one", "small", "big") and self.things == scene.things
        if self.kind == "pair":
            return scene.kind in ("beside", "above") and set(self.things) == set(scene.things)
        return self.kind == scene.kind and self.things == scene.things


def is_word_held_out(concept: Concept, language: str) -> bool:
    """Whether the last synonym for a concept is kept from every sentence, and so from every picture.

    A quarter of those that there are, but for English: its teacher learns words from pictures alone. Parallel
    sentences name the word beside the everyday one, and nothing else; so a text encoder has learnt it from stage 1.

    Example:
        >>> from altdiffusion_clip.emoji_m18.concepts import concepts
        >>> is_word_held_out(concepts()[0], "en")
        False
    """
    place = LANGUAGES.index(language)
    words = language_of(language).things[concept.code].names
    return language != "en" and len(words) > 1 and (concept.index + place) % 4 == 0


def held_out_words(language: str) -> dict[int, str]:
    """The words of a language that are kept from every sentence, by the index of their concept."""
    return {
        concept.index: language_of(language).things[concept.code].names[-1][0]
        for concept in concepts()
        if is_word_held_out(concept, language)
    }


def trained_names(concept: Concept, language: str) -> tuple[tuple[str, ...], ...]:
    """The words for a concept that sentences use, each in its forms; the everyday word first."""
    names = language_of(language).things[concept.code].names
    return names[:-1] if is_word_held_out(concept, language) else names


def captions(concept: Concept, ground: Ground | None, language: str) -> list[str]:
    """The ways to say that a picture shows a concept, on a ground or with no word about it, in its everyday word.

    Args:
        concept: what the picture shows.
        ground: behind it; None for captions that only name the concept.
        language: one of `LANGUAGES`.

    Raises:
        KeyError: there are no captions in that language.

    Example:
        >>> from altdiffusion_clip.emoji_m18.concepts import find_concept, find_ground
        >>> captions(find_concept("cat"), find_ground("blue"), "zh")[0]
        '蓝色背景上的猫'
        >>> captions(find_concept("cat"), None, "en")
        ['cat', 'a cat', 'a picture of cat', 'a picture of a cat']
    """
    forms = language_of(language).things[concept.code].names[0]
    return _with_ground(forms, ground, language)


def claim_of(scene: Scene, generator: random.Random) -> Claim:
    """Draws something that is true of a scene; its size or count is always said, its ground mostly."""
    kind = scene.kind
    things = scene.things
    if kind in ("beside", "above") and generator.random() < 0.35:
        kind = "pair"
        if generator.random() < 0.5:
            things = things[::-1]
    return Claim(kind, things, scene.ground if generator.random() < 0.85 else None)


def say(claim: Claim, language: str, generator: random.Random) -> str:
    """Says a claim in one of the ways there are, drawn at random."""
    words = language_of(language)
    if len(claim.things) == 2:
        first, second = (generator.choice(_forms(thing, language, generator)) for thing in claim.things)
        pattern = generator.choice(words.patterns[claim.kind])
        said: Sequence[str] = [pattern.format(first=first, second=second)]
        if claim.kind != "pair" and claim.ground and words.patterns["on"][0].startswith("{ground}"):
            # Where the ground comes first, as in Chinese, it would belong to the first of two phrases alone.
            tags = words.tags[claim.ground.name]
            return generator.choice(words.patterns["tag"]).format(thing=said[0], ground=generator.choice(tags))
    elif claim.kind == "one":
        said = _forms(claim.things[0], language, generator)
    else:
        said = getattr(words.things[claim.things[0].code], claim.kind)
    # The plain ways are what people type most: half of the draws.
    sentences = _with_ground(said, claim.ground, language)
    return generator.choice(sentences[: max(1, len(said))] if generator.random() < 0.5 else sentences)


def _forms(concept: Concept, language: str, generator: random.Random) -> tuple[str, ...]:
    names = trained_names(concept, language)
    return names[0] if len(names) == 1 or generator.random() < 0.6 else generator.choice(names[1:])


def _with_ground(said: Sequence[str], ground: Ground | None, language: str) -> list[str]:
    """All sentences of some ways to say what is shown, the most usual first."""
    words = language_of(language)
    if ground is None:
        return [pattern.format(thing=thing) for pattern in words.patterns["alone"] for thing in said]
    phrased = [(words.patterns["on"], words.on[ground.name]), (words.patterns["tag"], words.tags[ground.name])]
    return [
        pattern.format(thing=thing, ground=phrase)
        for patterns, phrases in phrased
        for pattern in patterns
        for phrase in phrases
        for thing in said
    ]


_FULL_STOPS = {"zh": "。", "ja": "。", "hi": "।"}
_ARABIC_VOWELS = "\u064e\u064f\u0650\u0652"
_CAPITALS = frozenset(LANGUAGES) - {"zh", "ja", "th", "ko", "hi", "ar"}


def as_typed(sentence: str, language: str, generator: random.Random) -> str:
    """A sentence as some people type it: with capitals, a full stop, traditional characters or vowel signs.

    Two sentences in three stay as they are. Chinese needs the package OpenCC.
    """
    if generator.random() < 2 / 3:
        return sentence
    if language in _CAPITALS:
        how = generator.choice(("first", "first", "all", "none", "as it is"))
        if how == "first":
            sentence = _upper(sentence[:1], language) + sentence[1:]
        elif how == "all":
            sentence = _upper(sentence, language)
        elif how == "none":
            sentence = sentence.translate(_TURKISH_LOWER).lower() if language == "tr" else sentence.lower()
    elif language == "zh" and generator.random() < 0.6:
        sentence = traditional(sentence)
    elif language == "ar" and generator.random() < 0.6:
        sentence = "".join(
            character + generator.choice(_ARABIC_VOWELS)
            if character.isalpha() and generator.random() < 0.4
            else character
            for character in sentence
        )
    return sentence + _FULL_STOPS.get(language, ".") if generator.random() < 0.4 else sentence


_TURKISH_UPPER, _TURKISH_LOWER = str.maketrans("iı", "İI"), str.maketrans("İI", "iı")


def _upper(text: str, language: str) -> str:
    return text.translate(_TURKISH_UPPER).upper() if language == "tr" else text.upper()


@functools.cache
def _converter() -> Any:
    from opencc import OpenCC  # of the `train` extra

    return OpenCC("s2t")


def traditional(sentence: str) -> str:
    """A Chinese sentence in traditional characters. Needs the package OpenCC."""
    return str(_converter().convert(sentence))
