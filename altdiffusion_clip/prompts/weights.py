"""(word:1.3) and [word] in prompts of any script: emphasis by character.

The notation is AUTOMATIC1111's: `(word)` multiplies the weight of what is inside by 1.1, `[word]` divides it by 1.1,
`(word:1.3)` multiplies it by 1.3, brackets nest, and a backslash makes a bracket an ordinary character. Full-width
brackets and colons, and the digits of any script, mean the same.
A number is a weight only if it is between 0 and `MOST` and follows a word: `(12:30)` and `(16:9)` are text.
"""

import re
import unicodedata
from dataclasses import dataclass

from altdiffusion_clip.prompts.normalising import normalise

STEP = 1.1
"""The factor of a pair of brackets without a number."""

MOST = 3.0
"""The largest number that is read as a weight."""

_OPEN = {"(": "round", "（": "round", "[": "square", "［": "square"}
_CLOSE = {")": "round", "）": "round", "]": "square", "］": "square"}
_ESCAPE = "\\"
_NUMBER = re.compile(r"[:：]\s*([+\-＋－]?[\d.．٫]+)\s*[)）]")


@dataclass(frozen=True)
class WeightedText:
    """A prompt with its weights parsed.

    Attributes:
        text: the prompt without the notation.
        weights: one for each character of the text.
        not_weights: what looks like a weight but is read as text, such as `(16:9)`.
    """

    text: str
    weights: tuple[float, ...]
    not_weights: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether every character has the weight 1."""
        return all(weight == 1 for weight in self.weights)


def parse_weights(prompt: str) -> WeightedText:
    """Parses the weights in a prompt, which is normalised first (see `normalise`).

    A bracket that is never closed extends to the end. A closing bracket that closes nothing is an ordinary character.

    Example:
        >>> parsed = parse_weights("a (red:1.5) [cat]")
        >>> parsed.text
        'a red cat'
        >>> [round(weight, 2) for weight in parsed.weights]
        [1.0, 1.0, 1.5, 1.5, 1.5, 1.0, 0.91, 0.91, 0.91]
        >>> parse_weights("（蓝色：1.5）背景").text
        '蓝色背景'
    """
    prompt = normalise(prompt)
    characters: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int, str]] = []
    not_weights: list[str] = []

    def multiply(start: int, factor: float) -> None:
        for i in range(start, len(weights)):
            weights[i] *= factor

    position = 0
    while position < len(prompt):
        character = prompt[position]
        number = _NUMBER.match(prompt, position) if opened and opened[-1][0] == "round" else None
        factor = _value(number[1]) if number else None
        if character == _ESCAPE and prompt[position + 1 : position + 2] in (*_OPEN, *_CLOSE, _ESCAPE):
            characters.append(prompt[position + 1])
            weights.append(1.0)
            position += 2
        elif character in _OPEN:
            opened.append((_OPEN[character], len(characters), character))
            position += 1
        elif number is not None:
            _, start, bracket = opened.pop()
            if factor is not None and 0 <= factor <= MOST and any(map(_is_worded, characters[start:])):
                multiply(start, factor)
            else:
                characters.insert(start, bracket)
                weights.insert(start, 1.0)
                characters += number[0]
                weights += [1.0] * len(number[0])
                not_weights.append("".join(characters[start:]))
            position = number.end()
        elif character in _CLOSE and opened and opened[-1][0] == _CLOSE[character]:
            kind, start, _ = opened.pop()
            multiply(start, STEP if kind == "round" else 1 / STEP)
            position += 1
        else:
            characters.append(character)
            weights.append(1.0)
            position += 1
    for kind, start, _ in opened:
        multiply(start, STEP if kind == "round" else 1 / STEP)
    return WeightedText("".join(characters), tuple(weights), tuple(not_weights))


def _is_worded(character: str) -> bool:
    """Whether a character is a letter, or a symbol that stands for a thing, such as an emoji."""
    return character.isalpha() or unicodedata.category(character) == "So"


def _value(digits: str) -> float | None:
    try:
        return float(unicodedata.normalize("NFKC", digits).replace("٫", "."))  # the Arabic decimal separator
    except ValueError:  # 1.2.3
        return None
