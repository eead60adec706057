"""Which words of a prompt emoji-m9 knows: it draws something for any prompt, and this tells when that is not it."""

import functools
import re

from altdiffusion_clip.emoji.concepts import Concept, concepts
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.weights import parse_weights

_HAS_SPACES = re.compile(r"^[^\u3040-\u30ff\u3400-\u9fff]+$")
_STEM = 4
"""Letters of a name that must be there; the rest may be an ending."""


def things_in(prompt: str) -> tuple[Concept, ...]:
    """The things that a prompt names, in any of the nine languages.

    Args:
        prompt: with weights or without.

    Example:
        >>> [thing.names["en"] for thing in things_in("蓝色背景上的猫")]
        ['cat']
        >>> things_in("a castle at night")
        ()
    """
    text = normalise(parse_weights(prompt).text).casefold()
    found = {}
    for has_ending in (False, True):  # what is written exactly so, before what may be another word's form
        for concept, pattern in _patterns(has_ending):
            text, count = pattern.subn(" ", text)
            if count:
                found[concept.index] = concept
    return tuple(found.values())


@functools.cache
def _patterns(has_ending: bool) -> tuple[tuple[Concept, re.Pattern[str]], ...]:
    """What a thing's names look like, the longest first; with other endings, or as they are."""
    names = {(name.casefold(), concept) for concept in concepts() for name in concept.names.values()}
    # People say apple for red apple.
    names |= {(concept.names["en"].split()[-1].casefold(), concept) for concept in concepts()}
    ordered = sorted(names, key=lambda each: (-len(each[0]), each[0], each[1].index))
    return tuple((concept, re.compile(_pattern(name, has_ending))) for name, concept in ordered)


def _pattern(name: str, has_ending: bool) -> str:
    if not _HAS_SPACES.match(name):
        return re.escape(name)
    if not has_ending:
        return rf"(?<!\w){re.escape(name)}(?!\w)"
    # Plurals and cases change the last letters; Korean and Arabic have particles.
    stem = name[: max(_STEM, len(name) - 1)] if len(name) > _STEM else name
    return rf"(?<!\w)(?:و|ال)?{re.escape(stem)}\w{{0,3}}(?!\w)"
