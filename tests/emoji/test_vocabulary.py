"""What emoji-m9 knows of a prompt, in its nine languages."""

import pytest

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, colours, concepts
from altdiffusion_clip.emoji.vocabulary import things_in


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_it_was_taught_is_known(language: str) -> None:
    for concept in concepts():
        for sentence in captions(concept, colours()[concept.index % 8], language):
            assert concept.names[language] in [thing.names[language] for thing in things_in(sentence)], sentence


@pytest.mark.parametrize(
    ("prompt", "thing"),
    [
        ("Cats!", "cat"),
        ("a (dog:1.4) in the park", "dog"),
        ("кошку", "cat"),
        ("고양이와 함께", "cat"),
        ("القطة", "cat"),
        ("an apple", "red apple"),
    ],
)
def test_other_ways_to_say_it(prompt: str, thing: str) -> None:
    assert thing in [found.names["en"] for found in things_in(prompt)]


@pytest.mark.parametrize("prompt", ["a castle at night", "雪山下的红色小屋", "un château", "замок", "", "cathedral"])
def test_other_things_are_not(prompt: str) -> None:
    assert things_in(prompt) == ()
