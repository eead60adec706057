"""What the small model in the package knows. It draws something for any prompt, so users must be told."""

import functools
from dataclasses import dataclass

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18
from altdiffusion_clip.errors import UserError


@dataclass(frozen=True)
class Unknown:
    """The parts of a prompt that a model does not know.

    Attributes:
        model: its name.
        known: English names of the things it does know.
        words: the words it does not know, in the order of the prompt; empty if they cannot be found.
    """

    model: str
    known: tuple[str, ...]
    words: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the user."""
        listed = f"`altdiffusion inspect {self.model} --things` lists what it draws"
        if not self.known:
            return f"{self.model} knows nothing that this prompt names, so the picture shows something else; {listed}"
        return f"{self.model} knows {', '.join(self.known)}, but not {', '.join(self.words)}; {listed}"


@functools.lru_cache(maxsize=4096)
def unknown_of(model: str, prompt: str) -> Unknown | None:
    """Finds the parts of a prompt that a model does not know. None if it knows everything, or if nobody can tell.

    Args:
        model: as the user named it.
        prompt: in any language.

    Example:
        >>> print(unknown_of("emoji-m18", "a knight"))  # doctest: +ELLIPSIS
        emoji-m18 knows nothing that this prompt names, so the picture shows something else; ...
        >>> unknown_of("emoji-m18", "a cat") is None, unknown_of("BAAI/AltDiffusion", "a castle") is None
        (True, True)
    """
    if model != EMOJI_M18:
        return None
    from altdiffusion_clip.emoji.vocabulary import read

    reading = read(prompt)
    return None if reading.is_known else Unknown(model, reading.names, reading.unknown)


def things_of(model: str) -> list[dict[str, str]]:
    """The things that a model draws: the emoji and the names of each, by language code.

    Raises:
        UserError: this model has no list.

    Example:
        >>> things_of("emoji-m18")[0]["zh"]
        '猫'
    """
    if model != EMOJI_M18:
        raise UserError(f"what {model} draws cannot be listed; --things is for {EMOJI_M18}")
    from altdiffusion_clip.emoji.concepts import drawn_concepts

    return [{"emoji": each.emoji, **each.names} for each in drawn_concepts()]
