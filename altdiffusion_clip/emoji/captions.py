"""Captions of scenes in eighteen languages, as people type them.

A claim is the meaning of a sentence. A picture of a big cat on blue is also described by "a cat". Sentences are built
from the words and patterns of `languages`.
"""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from altdiffusion_clip.emoji.concepts import Concept, Ground, concepts
from altdiffusion_clip.emoji.languages import LANGUAGES, language_of
from altdiffusion_clip.emoji.scenes import Scene

CLAIM_KINDS = ("one", "small", "big", "pair", "beside", "above", "two", "three")
"""The kinds of scenes, and "pair", which does not say where the two things are."""


@dataclass(frozen=True)
class Claim:
    """The meaning of a sentence about a picture.

    Attributes:
        kind: of `CLAIM_KINDS`.
        things: one, or two in order.
        ground: None if the sentence does not mention it.
    """

    kind: str
    things: tuple[Concept, ...]
    ground: Ground | None = None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether the claim is true of a scene."""
        if self.ground is not None and self.ground != scene.ground:
            return False
        if self.kind == "one":
            return scene.kind in ("one", "small", "big") and self.things == scene.things
        if self.kind == "pair":
            return scene.kind in ("beside", "above") and set(self.things) == set(scene.things)
        return self.kind == scene.kind and self.things == scene.things


def is_word_held_out(concept: Concept, language: str) -> bool:
    """Whether the last synonym of a concept is held out from all sentences, and so from all pictures.

    A quarter of the synonyms are, except in English, whose teacher learns words only from pictures. Parallel sentences
    contain the bare word beside the everyday one, so the text encoder knows it only from stage 1.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import concepts
        >>> is_word_held_out(concepts()[0], "en")
        False
    """
    place = LANGUAGES.index(language)
    words = language_of(language).things[concept.code].names
    return language != "en" and len(words) > 1 and (concept.index + place) % 4 == 0


def held_out_words(language: str) -> dict[int, str]:
    """The held-out words of a language, by the index of their concept."""
    return {
        concept.index: language_of(language).things[concept.code].names[-1][0]
        for concept in concepts()
        if is_word_held_out(concept, language)
    }


def trained_names(concept: Concept, language: str) -> tuple[tuple[str, ...], ...]:
    """The words for a concept that sentences use, each with its forms, the everyday word first."""
    names = language_of(language).things[concept.code].names
    return names[:-1] if is_word_held_out(concept, language) else names


def captions(concept: Concept, ground: Ground | None, language: str) -> list[str]:
    """The captions of a concept with its everyday word, with or without a ground.

    Args:
        concept: what the picture shows.
        ground: behind it; None for captions that only name the concept.
        language: one of `LANGUAGES`.

    Raises:
        KeyError: there are no captions in that language.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_concept, find_ground
        >>> captions(find_concept("cat"), find_ground("blue"), "zh")[0]
        '蓝色背景上的猫'
        >>> captions(find_concept("cat"), None, "en")
        ['cat', 'a cat', 'a picture of cat', 'a picture of a cat']
    """
    forms = language_of(language).things[concept.code].names[0]
    return _with_ground(forms, ground, language)


def claim_of(scene: Scene, generator: random.Random) -> Claim:
    """Draws a random claim that is true of a scene. It always states size or count, and usually the ground."""
    kind = scene.kind
    things = scene.things
    if kind in ("beside", "above") and generator.random() < 0.35:
        kind = "pair"
        if generator.random() < 0.5:
            things = things[::-1]
    return Claim(kind, things, scene.ground if generator.random() < 0.85 else None)


def say(claim: Claim, language: str, generator: random.Random) -> str:
    """Says a claim in a random wording."""
    words = language_of(language)
    if len(claim.things) == 2:
        first, second = (generator.choice(_forms(thing, language, generator)) for thing in claim.things)
        pattern = generator.choice(words.patterns[claim.kind])
        said: Sequence[str] = [pattern.format(first=first, second=second)]
        if claim.kind != "pair" and claim.ground and words.patterns["on"][0].startswith("{ground}"):
            # If the ground comes first, as in Chinese, it would apply only to the first of two phrases.
            tags = words.tags[claim.ground.name]
            return generator.choice(words.patterns["tag"]).format(thing=said[0], ground=generator.choice(tags))
    elif claim.kind == "one":
        said = _forms(claim.things[0], language, generator)
    else:
        said = getattr(words.things[claim.things[0].code], claim.kind)
    # Half of the sentences are plain, because that is what people type most.
    sentences = _with_ground(said, claim.ground, language)
    return generator.choice(sentences[: max(1, len(said))] if generator.random() < 0.5 else sentences)


def _forms(concept: Concept, language: str, generator: random.Random) -> tuple[str, ...]:
    names = trained_names(concept, language)
    return names[0] if len(names) == 1 or generator.random() < 0.6 else generator.choice(names[1:])


def _with_ground(said: Sequence[str], ground: Ground | None, language: str) -> list[str]:
    """All sentences for some phrases, the most common first."""
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
    """Varies a sentence as people type it: capitals, a full stop, traditional characters or vowel signs.

    Two sentences in three are left alone. Chinese needs the package OpenCC.
    """
    if generator.random() < 2 / 3:
        return sentence
    if language in _CAPITALS:
        how = generator.choice(("first", "first", "all", "none", "as it is"))
        if how == "first":
            sentence = in_capitals(sentence[:1], language) + sentence[1:]
        elif how == "all":
            sentence = in_capitals(sentence, language)
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


def in_capitals(text: str, language: str) -> str:
    """A text in capitals, as its language writes them."""
    return text.translate(_TURKISH_UPPER).upper() if language == "tr" else text.upper()


@functools.cache
def _converter() -> Any:
    from opencc import OpenCC  # from the `train` extra

    return OpenCC("s2t")


def traditional(sentence: str) -> str:
    """A Chinese sentence in traditional characters. Needs the package OpenCC."""
    return str(_converter().convert(sentence))
