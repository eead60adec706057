"""The packaged scorer: unseen scenes, each among three that differ from it in one thing, found by their captions."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import CLIPModel, CLIPTokenizer

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.emoji.captions import Claim, claim_of, in_capitals, say
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.parts import PACKAGED
from altdiffusion_clip.emoji.pictures import with_hard_negatives
from altdiffusion_clip.emoji.recipe import ALL_KINDS
from altdiffusion_clip.emoji.scenes import Scene, draw_scenes
from tests.conftest import in_full

Gallery = tuple[list[Scene], list[Claim], torch.Tensor]


@pytest.fixture(scope="module")
def scorer() -> AltCLIPScorer:
    return AltCLIPScorer.from_pretrained(PACKAGED / "scorer")


@pytest.fixture(scope="module")
def gallery(scorer: AltCLIPScorer) -> Gallery:
    """Scenes, what is said of each with its ground, and their vectors."""
    shown = with_hard_negatives(draw_scenes(50, seed=123, shares=ALL_KINDS, unseen=True), seed=5)
    words = random.Random(7)
    claims = [replace(claim_of(scene, words), ground=scene.ground) for scene in shown]
    vectors, broken = scorer.encode_images([scene.render() for scene in shown])
    assert not broken
    return shown, claims, vectors


def recall_at_1(texts: torch.Tensor, gallery: Gallery) -> float:
    shown, claims, vectors = gallery
    nearest = (texts @ vectors.T).argmax(1).tolist()
    return sum(claim.is_true_of(shown[place]) for claim, place in zip(claims, nearest, strict=True)) / len(claims)


@pytest.mark.parametrize(
    "language", ["en", "zh", "ar", *in_full(*(code for code in LANGUAGES if code not in ("en", "zh", "ar")))]
)
def test_captions_find_their_scenes(language: str, scorer: AltCLIPScorer, gallery: Gallery) -> None:
    words = random.Random(1)
    assert recall_at_1(scorer.encode_texts([say(claim, language, words) for claim in gallery[1]]), gallery) >= 0.95


@pytest.mark.parametrize("language", ["tr", *in_full("de", "vi", "uk", "en", "pl")])
def test_capitals_are_read_like_small_letters(language: str, scorer: AltCLIPScorer, gallery: Gallery) -> None:
    words = random.Random(1)
    said = [say(claim, language, words) for claim in gallery[1]]
    usual, *others = (
        recall_at_1(scorer.encode_texts([write(text) for text in said]), gallery)
        for write in (str, str.lower, str.upper, lambda text: in_capitals(text, language))
    )
    assert min(others) >= usual - 0.03


@pytest.mark.parametrize(("language", "most"), [("en", 1.0), ("zh", 0.1)])
def test_the_teacher_reads_english_alone(language: str, most: float, gallery: Gallery) -> None:
    teacher = CLIPModel.from_pretrained(PACKAGED / "teacher", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(PACKAGED / "teacher")
    words = random.Random(1)
    texts = tokenizer([say(claim, language, words) for claim in gallery[1]], padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(teacher.get_text_features(**texts).pooler_output, dim=-1)
    found = recall_at_1(vectors, gallery)
    assert found <= most
    assert language != "en" or found >= 0.95
