"""(word:1.3) and [word] in prompts of any script: which characters count for more, and which for less.

The notation is that of the AUTOMATIC1111 WebUI: `(word)` multiplies the weight of what is inside by 1.1, `[word]`
divides it by 1.1, `(word:1.3)` multiplies it by 1.3, brackets nest, and a backslash makes a bracket an ordinary
character. Full-width brackets, colons and digits, as Chinese and Japanese keyboards write them, mean the same.
"""

import re
import unicodedata
from dataclasses import dataclass

STEP = 1.1
"""What a pair of brackets without a number multiplies or divides by."""

_OPEN = {"(": "round", "（": "round", "[": "square", "［": "square"}
_CLOSE = {")": "round", "）": "round", "]": "square", "］": "square"}
_ESCAPE = "\\"
_NUMBER = re.compile(r"[:：]\s*([+\-＋－]?[0-9０-９.．]+)\s*[)）]")


@dataclass(frozen=True)
class WeightedText:
    """A prompt without its notation.

    Attributes:
        text: what is left to read.
        weights: one for each character of the text.
    """

    text: str
    weights: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether every character has the weight 1."""
        return all(weight == 1 for weight in self.weights)


def parse_weights(prompt: str) -> WeightedText:
    """Reads the weights in a prompt.

    A bracket that is never closed reaches to the end; one that closes nothing is an ordinary character.

    Example:
        >>> parsed = parse_weights("a (red:1.5) [cat]")
        >>> parsed.text
        'a red cat'
        >>> [round(weight, 2) for weight in parsed.weights]
        [1.0, 1.0, 1.5, 1.5, 1.5, 1.0, 0.91, 0.91, 0.91]
        >>> parse_weights("（蓝色：1.5）背景").text
        '蓝色背景'
    """
    characters: list[str] = []
    weights: list[float] = []
    opened: list[tuple[str, int]] = []

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
            opened.append((_OPEN[character], len(characters)))
            position += 1
        elif number is not None and factor is not None:
            multiply(opened.pop()[1], factor)
            position = number.end()
        elif character in _CLOSE and opened and opened[-1][0] == _CLOSE[character]:
            kind, start = opened.pop()
            multiply(start, STEP if kind == "round" else 1 / STEP)
            position += 1
        else:
            characters.append(character)
            weights.append(1.0)
            position += 1
    for kind, start in opened:
        multiply(start, STEP if kind == "round" else 1 / STEP)
    return WeightedText("".join(characters), tuple(weights))


def _value(digits: str) -> float | None:
    try:
        return float(unicodedata.normalize("NFKC", digits))
    except ValueError:  # 1.2.3
        return None
