"""Equal to the eye, equal to the model; and plain text keeps its ids."""

import random
import unicodedata

import pytest
from transformers import AutoTokenizer

from altdiffusion_clip.emoji.captions import as_typed, claim_of, say
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.scenes import draw_scenes
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.prompts.windows import split_into_windows, tokenize
from tests.conftest import PUBLISHED

TEXTS = {
    "ar": "قطة على خلفية زرقاء",
    "zh": "蓝色背景上的猫",
    "ko": "파란색 배경의 고양이",
    "ja": "青い背景のペンギン",
    "en": "cat",
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(PUBLISHED / "alt-clip-m18-tiny")


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: f"\u202b{text}\u202c",
        lambda text: f"\u2068{text}\u2069",
        lambda text: f"\u200e{text}\ufeff",
        "\u200b".join,
        "\u00ad".join,
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace("طة", "طـــة"),
    ],
)
def test_disguised_texts_have_the_ids_of_plain_ones(language: str, disguise, tokenizer) -> None:
    plain, disguised = TEXTS[language], disguise(TEXTS[language])
    assert tokenize(tokenizer, [disguised])[0].tolist() == tokenize(tokenizer, [plain])[0].tolist()
    windows = [split_into_windows(tokenizer, parse_weights(text)).input_ids.tolist() for text in (plain, disguised)]
    assert windows[0] == windows[1]


def test_plain_text_keeps_its_ids(tokenizer) -> None:
    words = random.Random(0)
    shares = {"one": 1.0, "beside": 1.0, "two": 1.0}
    for number, scene in enumerate(draw_scenes(20 * len(LANGUAGES), seed=1, shares=shares)):
        language = LANGUAGES[number % len(LANGUAGES)]
        sentence = as_typed(say(claim_of(scene, words), language, words), language, words)
        assert tokenizer(normalise(sentence)).input_ids == tokenizer(sentence).input_ids, sentence


@pytest.mark.parametrize("text", ["क्‍ष", "👨‍👩‍👧", "می‌خواهم"])
def test_joiners_that_shape_what_is_seen_stay(text: str) -> None:
    assert normalise(text) == text


def test_half_an_emoji_is_a_replacement_character(tokenizer) -> None:
    plain, cut = "a cat \N{REPLACEMENT CHARACTER}", "a cat \ud83d"
    assert tokenize(tokenizer, [cut])[0].tolist() == tokenize(tokenizer, [plain])[0].tolist()
    assert parse_weights(f"({cut}:1.2)").text == plain
    assert normalise("\ud83d\ude3a") == "😺", "two halves are one character"
