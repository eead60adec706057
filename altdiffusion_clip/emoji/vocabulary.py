"""Finds the words of a prompt that emoji-m9 knows. It draws something for any prompt, so users must be told."""

import functools
import re

from altdiffusion_clip.emoji.concepts import Concept, concepts
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.weights import parse_weights

_HAS_SPACES = re.compile(r"^[^\u3040-\u30ff\u3400-\u9fff]+$")
_STEM = 4
"""Letters of a name that must match. The rest may be an ending."""


def things_in(prompt: str) -> tuple[Concept, ...]:
    """Finds the things that a prompt names, in any of the nine languages.

    Args:
        prompt: with or without weights.

    Example:
        >>> [thing.names["en"] for thing in things_in("蓝色背景上的猫")]
        ['cat']
        >>> things_in("a castle at night")
        ()
    """
    text = normalise(parse_weights(prompt).text).casefold()
    found = {}
    for has_ending in (False, True):  # exact matches before forms of other words
        for concept, part, pattern in _patterns(has_ending):
            if part in text:  # much faster than the pattern alone
                text, count = pattern.subn(" ", text)
                if count:
                    found[concept.index] = concept
    return tuple(found.values())


@functools.cache
def _patterns(has_ending: bool) -> tuple[tuple[Concept, str, re.Pattern[str]], ...]:
    """Patterns of a thing's names, exact or with other endings, each with a part of it. The longest come first."""
    names = {(name.casefold(), concept) for concept in concepts() for name in concept.names.values()}
    # "apple" means the red apple.
    names |= {(concept.names["en"].split()[-1].casefold(), concept) for concept in concepts()}
    ordered = sorted(names, key=lambda each: (-len(each[0]), each[0], each[1].index))
    return tuple((concept, *_pattern(name, has_ending)) for name, concept in ordered)


def _pattern(name: str, has_ending: bool) -> tuple[str, re.Pattern[str]]:
    part, before, after = name, "", ""
    if _HAS_SPACES.match(name):
        before, after = r"(?<!\w)", r"(?!\w)"
        if has_ending:
            # Plurals and cases change the last letters. Korean and Arabic add particles.
            part = name[: max(_STEM, len(name) - 1)] if len(name) > _STEM else name
            before, after = rf"{before}(?:و|ال)?", rf"\w{{0,3}}{after}"
    return part, re.compile(before + re.escape(part) + after)
