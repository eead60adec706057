"""Finds WebUI syntax that is not supported here. It is read as text, and a warning says so."""

import functools
import logging
import re

from altdiffusion_clip.prompts.weights import parse_weights

logger = logging.getLogger(__name__)

_OTHERS = {
    "<lora:name:weight>": re.compile(r"<(?:lora|lyco|hypernet):[^<>]+>"),
    "BREAK": re.compile(r"\bBREAK\b"),
    "[a|b]": re.compile(r"\[[^\[\]|]*\|[^\[\]]*\]"),
    "[from:to:when]": re.compile(r"\[[^\[\]:]*:[^\[\]:]*:\s*[0-9.]+\s*\]"),
    "AND": re.compile(r"\bAND\b"),
}


def not_understood(prompt: str) -> list[str]:
    """The kinds of syntax in a prompt that only other programs support.

    Example:
        >>> not_understood("a cat <lora:style:0.8> BREAK a dog")
        ['<lora:name:weight>', 'BREAK']
    """
    return [kind for kind, pattern in _OTHERS.items() if pattern.search(prompt)]


@functools.lru_cache(maxsize=256)
def warn_of_syntax(prompt: str) -> None:
    """Warns once for each prompt with unsupported syntax, or with bracketed numbers that are not weights."""
    kinds = not_understood(prompt)
    if kinds:
        logger.warning(
            "%s in the prompt %s not understood here and drawn as text; LoRAs are loaded with load_lora_weights",
            ", ".join(kinds),
            "is" if len(kinds) == 1 else "are",
        )
    odd = parse_weights(prompt).not_weights
    if odd:
        logger.warning(
            "%s in the prompt %s read as text: weights follow a word and are between 0 and 3, as in (cat:1.3)",
            ", ".join(odd),
            "is" if len(odd) == 1 else "are",
        )
