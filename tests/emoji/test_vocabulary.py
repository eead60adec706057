"""What emoji-m18 knows of a prompt, in every language, as people type it; and that it says so when it does not."""

import random

import pytest

from altdiffusion_clip.emoji.captions import as_typed, claim_of, say
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.scenes import KINDS, draw_scenes
from altdiffusion_clip.emoji.vocabulary import read


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_it_was_taught_is_known(language: str) -> None:
    words = random.Random(0)
    for scene in draw_scenes(150, seed=4, shares=dict.fromkeys(KINDS, 1.0)):
        claim = claim_of(scene, words)
        sentence = as_typed(say(claim, language, words), language, words)
        reading = read(sentence)
        assert reading.is_known, (sentence, reading.unknown)
        assert set(claim.things) <= set(reading.things), sentence


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("A CAT ON A BLUE BACKGROUND.", {"cat"}),
        ("藍色背景上的貓", {"cat"}),
        ("قِطَّةٌ على خلفية زرقاء", {"cat"}),
        ("two dogs and a bicycle", {"dog", "bicycle"}),
        ("кошку на синем фоне", {"cat"}),
        ("고양이와 개", {"cat", "dog"}),
        ("(cat:1.3) in the snow", {"cat"}),
        ("ｃａｔ", {"cat"}),
        ("back\u00adpack", {"backpack"}),
    ],
)
def test_other_ways_to_type_it(prompt: str, things: set[str]) -> None:
    reading = read(prompt)
    assert {thing.names["en"] for thing in reading.things} == things
    assert reading.is_known


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a knight fighting a dragon", ("knight", "fighting")),
        ("Mona Lisa", ("mona", "lisa")),
        ("the Eiffel Tower", ("eiffel",)),
        ("雪山下的红色小屋", ("下的红色",)),
        ("мальчик с собакой", ("мальчик",)),
        ("桌子", ("桌子",)),
        ("宇航员骑马", ("宇航员骑",)),
        ("a photo of a dinosaur, masterpiece", ("photo", "masterpiece")),
    ],
)
def test_what_it_does_not_know_is_named(prompt: str, unknown: tuple[str, ...]) -> None:
    reading = read(prompt)
    assert reading.unknown == unknown
    assert not reading.is_known
