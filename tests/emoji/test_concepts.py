import importlib

import pytest
from emoji import EMOJI_DATA
from emoji import config as emoji_config

from altdiffusion_clip.emoji import colours, concepts, find_colour, find_concept
from altdiffusion_clip.emoji.concepts import ADDED_LANGUAGES, LANGUAGES, is_held_out, is_pair_held_out


def test_there_are_enough() -> None:
    assert len(concepts()) >= 80
    assert len(colours()) >= 8
    assert {"cat", "dog", "red apple"} <= {concept.names["en"] for concept in concepts()}


@pytest.mark.parametrize("language", [*LANGUAGES, *ADDED_LANGUAGES])
def test_names_are_cldrs_and_distinct(language: str) -> None:
    emoji_config.load_language(language)
    names = [concept.names[language] for concept in concepts()]
    assert len(set(names)) == len(names)
    for concept, name in zip(concepts(), names, strict=True):
        data = EMOJI_DATA.get(concept.emoji) or EMOJI_DATA[concept.emoji + "\ufe0f"]
        assert data[language].strip(":").replace("_", " ") == name


def test_unknown_names_say_what_to_do() -> None:
    with pytest.raises(KeyError, match="concepts\\(\\) lists"):
        find_concept("unicorn")
    with pytest.raises(KeyError, match="white, black"):
        find_colour("mauve")


def test_each_colour_and_concept_is_known_but_not_the_pair() -> None:
    for concept in concepts():
        assert sum(is_held_out(concept, colour) for colour in colours()) == 2
    for colour in colours():
        share = sum(is_held_out(concept, colour) for concept in concepts()) / len(concepts())
        assert 0.2 < share < 0.3


def test_each_concept_is_known_beside_most_others() -> None:
    for first in concepts():
        held_out = [second for second in concepts() if is_pair_held_out(first, second)]
        assert len(held_out) == len(concepts()) / 5
        assert all(is_pair_held_out(second, first) for second in held_out)


def test_the_public_names() -> None:
    module = importlib.import_module("altdiffusion_clip.emoji")
    for name in module.__all__:
        assert callable(getattr(module, name)) or isinstance(getattr(module, name), type)
