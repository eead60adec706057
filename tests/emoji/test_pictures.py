"""Captioned pictures that are made up as they are needed: the captions are true, and what is true of what is known."""

import random

import pytest
import torch
from transformers import AutoTokenizer

from altdiffusion_clip.emoji.captions import Claim, as_typed, claim_of, say, traditional
from altdiffusion_clip.emoji.concepts import find_concept, find_ground
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.pictures import ScenePictures, with_hard_negatives
from altdiffusion_clip.emoji.scenes import KINDS, Scene, draw_scenes
from altdiffusion_clip.training.data.pixels import normalised, signed
from tests.conftest import PUBLISHED

CAT, DOG, BLUE, RED = find_concept("cat"), find_concept("dog"), find_ground("blue"), find_ground("red")


@pytest.fixture(scope="module")
def pictures() -> ScenePictures:
    scenes = with_hard_negatives(draw_scenes(100, seed=0, shares=dict.fromkeys(KINDS, 1.0)), seed=1)
    tokenizer = AutoTokenizer.from_pretrained(PUBLISHED / "alt-clip-m18-tiny")
    return ScenePictures(scenes, tokenizer=tokenizer, languages=LANGUAGES, group=4)


@pytest.mark.parametrize(
    ("claim", "scene", "is_true"),
    [
        (Claim("one", (CAT,)), Scene("one", (CAT,), BLUE), True),
        (Claim("one", (CAT,)), Scene("big", (CAT,), BLUE), True),
        (Claim("big", (CAT,)), Scene("one", (CAT,), BLUE), False),
        (Claim("one", (CAT,), RED), Scene("one", (CAT,), BLUE), False),
        (Claim("one", (CAT,)), Scene("two", (CAT,), BLUE), False),
        (Claim("two", (CAT,)), Scene("three", (CAT,), BLUE), False),
        (Claim("one", (CAT,)), Scene("beside", (CAT, DOG), BLUE), False),
        (Claim("pair", (DOG, CAT)), Scene("beside", (CAT, DOG), BLUE), True),
        (Claim("pair", (DOG, CAT)), Scene("above", (CAT, DOG), BLUE), True),
        (Claim("beside", (DOG, CAT)), Scene("beside", (CAT, DOG), BLUE), False),
        (Claim("beside", (CAT, DOG), BLUE), Scene("beside", (CAT, DOG), BLUE), True),
    ],
)
def test_what_is_true_of_what(claim: Claim, scene: Scene, is_true: bool) -> None:
    assert claim.is_true_of(scene) == is_true


def test_every_caption_is_true_of_its_picture_and_of_few_others(pictures: ScenePictures) -> None:
    shown, said = pictures.draw(64, torch.Generator().manual_seed(0))
    positives = pictures.positives(said, shown)
    assert positives.diagonal().all()
    assert positives.sum() < 4 * len(shown)


def test_positives_are_those_of_the_claims(pictures: ScenePictures) -> None:
    shown, said = pictures.draw(40, torch.Generator().manual_seed(1))
    expected = [
        [pictures._said(text)[0].is_true_of(pictures.scenes[picture]) for picture in shown.tolist()]
        for text in said.tolist()
    ]
    assert pictures.positives(said, shown).tolist() == expected


def test_each_group_differs_in_one_thing_each(pictures: ScenePictures) -> None:
    changed = 0
    for first in range(0, len(pictures), 4):
        base, *others = pictures.scenes[first : first + 4]
        for other in others:
            assert not other.is_held_out
            differs = [base.ground != other.ground, base.kind != other.kind, base.things != other.things]
            changed += sum(differs) in (1, 2)
    assert changed > 0.9 * 3 * len(pictures) / 4


def test_draws_depend_on_the_generator_alone(pictures: ScenePictures) -> None:
    draws = [pictures.draw(8, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(draws[0][1], draws[1][1])
    assert [pictures.caption(text) for text in draws[0][1].tolist()] == [
        pictures.caption(text) for text in draws[1][1].tolist()
    ]
    ids, mask = pictures.tokenised(draws[0][1], 1)
    assert ids.shape == mask.shape
    assert pictures.tokens[int(draws[0][1][0])].tolist() == ids[0, : int(mask[0].sum())].tolist()


def test_pixels(pictures: ScenePictures) -> None:
    pixels = pictures.pixels_of(torch.tensor([0, 5]))
    assert pixels.shape == (2, 3, 128, 128)
    assert pixels.dtype == torch.uint8
    torch.testing.assert_close(normalised(pixels, [0.5] * 3, [0.5] * 3), signed(pixels), atol=1e-6, rtol=0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_can_be_said(language: str) -> None:
    words = random.Random(0)
    for scene in draw_scenes(100, seed=2, shares=dict.fromkeys(KINDS, 1.0)):
        sentence = as_typed(say(claim_of(scene, words), language, words), language, words)
        assert sentence.strip() == sentence
        assert "{" not in sentence


def test_traditional_characters() -> None:
    assert traditional("蓝色背景上的猫") == "藍色背景上的貓"
