import importlib
from importlib import resources

import pytest

from altdiffusion_clip.emoji import colours, concepts, find_concept, find_ground, grounds
from altdiffusion_clip.emoji.concepts import drawn_concepts, is_held_out, is_pair_held_out, plain_pairs


def test_there_are_enough() -> None:
    assert len(concepts()) >= 300
    assert len(drawn_concepts()) >= 200
    assert (len(colours()), len(grounds())) == (12, 18)
    assert {"cat", "dog", "apple"} <= {concept.names["en"] for concept in concepts()}


def test_each_has_a_sprite_under_its_code_points() -> None:
    sprites = resources.files("altdiffusion_clip.emoji").joinpath("sprites")
    for concept in concepts():
        assert "".join(chr(int(point, 16)) for point in concept.code.split("-")) == concept.emoji
        assert sprites.joinpath(f"{concept.code}.webp").is_file(), concept


def test_unknown_names_say_what_to_do() -> None:
    with pytest.raises(KeyError, match="concepts\\(\\) lists"):
        find_concept("spaghetti monster")
    with pytest.raises(KeyError, match="white, black"):
        find_ground("mauve")


def test_each_concept_is_known_beside_most_others() -> None:
    for first in concepts():
        held_out = [second for second in concepts() if is_pair_held_out(first, second)]
        assert len(held_out) == len(concepts()) / 5
        assert all(is_pair_held_out(second, first) for second in held_out)


def test_the_pairs_on_plain_grounds_are_seen_or_not() -> None:
    seen, unseen = plain_pairs(unseen=False), plain_pairs(unseen=True)
    assert len({*seen, *unseen}) == len(seen) + len(unseen) == len(drawn_concepts()) * len(colours())
    assert all(is_held_out(*pair) for pair in unseen)
    assert not any(is_held_out(*pair) for pair in seen)


def test_the_public_names() -> None:
    module = importlib.import_module("altdiffusion_clip.emoji")
    for name in module.__all__:
        assert callable(getattr(module, name)) or isinstance(getattr(module, name), type)
