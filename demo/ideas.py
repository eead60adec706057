"""Ideas that can be expressed in every language of a model: a thing on a ground."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import drawn_concepts, find_concept, find_ground, grounds

NAMES = {
    "en": "English",
    "zh": "中文",
    "es": "Español",
    "fr": "Français",
    "ru": "Русский",
    "ja": "日本語",
    "ko": "한국어",
    "ar": "العربية",
    "it": "Italiano",
    "de": "Deutsch",
    "pt": "Português",
    "nl": "Nederlands",
    "pl": "Polski",
    "uk": "Українська",
    "tr": "Türkçe",
    "vi": "Tiếng Việt",
    "th": "ไทย",
    "hi": "हिन्दी",
}
"""The languages of AltDiffusion-m18 by their own names. The first nine are m9's, and the first two m2's."""

M2, M9, M18 = 2, 9, 18


@dataclass(frozen=True)
class Ideas:
    """The ideas for a model.

    Attributes:
        languages: codes with the languages' own names.
        things: labels with values for `say`.
        grounds: likewise.
        say: gives an idea in each language. Raises KeyError for an unknown thing or ground.
    """

    languages: dict[str, str]
    things: list[tuple[str, str]]
    grounds: list[str]
    say: Callable[[str, str], list[str]]


def ideas_of(model: str) -> Ideas:
    """The ideas for a model in its languages, according to its name; by default nine.

    Example:
        >>> ideas = ideas_of("BAAI/AltDiffusion-m18")
        >>> len(ideas.languages), ideas.say("cat", "sea")[1]
        (18, '海边的猫')
    """
    name = model.rstrip("/").rpartition("/")[2].lower()
    count = M18 if "m18" in name else M2 if name == "altdiffusion" else M9
    codes = list(NAMES)[:count]
    languages = {code: NAMES[code] for code in codes}
    things = [(f"{each.emoji} {each.names['en']} · {each.names['zh']}", each.names["en"]) for each in drawn_concepts()]
    return Ideas(languages, things, [each.name for each in grounds()], partial(_say, codes))


def _say(codes: Sequence[str], thing: str, ground: str) -> list[str]:
    concept, behind = find_concept(thing), find_ground(ground)
    return [captions(concept, behind, code)[0] for code in codes]
