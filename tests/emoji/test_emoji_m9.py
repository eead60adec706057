"""What the embedded model must be able to do. The full measure is `altdiffusion evaluate emoji --drawing`."""

import pytest
import torch
from transformers import AltCLIPModel

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.emoji.concepts import LANGUAGES
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.recogniser import Recogniser
from altdiffusion_clip.evaluation.emoji import evaluate_drawing, evaluate_retrieval, evaluate_scenes
from tests.conftest import FULL, in_full

SOME = LANGUAGES if FULL else ("en", "zh", "ar")


@pytest.fixture(scope="module")
def retrieval() -> dict[tuple[str, str], dict[str, float]]:
    return {(row["system"], row["language"]): row for row in evaluate_retrieval(languages=SOME)}


@pytest.mark.full
def test_the_english_teacher_does_not_read_chinese(retrieval) -> None:
    for measure in ("text_to_image_r1", "image_to_text_r1"):
        assert retrieval["teacher", "zh"][measure] < 5
        assert retrieval["teacher", "en"][measure] > 90


@pytest.mark.parametrize("language", SOME)
@pytest.mark.parametrize("system", ["distilled", "student"])
def test_the_student_reads_nine_languages(system: str, language: str, retrieval) -> None:
    for measure in ("text_to_image_r1", "image_to_text_r1"):
        assert retrieval[system, language][measure] >= 80


def test_the_student_keeps_the_teachers_english(retrieval) -> None:
    for measure in ("text_to_image_r1", "image_to_text_r1"):
        assert retrieval["student", "en"][measure] >= retrieval["teacher", "en"][measure] - 5


def test_the_judge_knows_renders() -> None:
    assert Recogniser.load().accuracy(held_out_pictures()) >= 99


@pytest.mark.full
@pytest.mark.parametrize("language", ["en", "zh"])
def test_drawn_pictures_are_recognised(language: str) -> None:
    """A small sample of the full measure, so with a margin."""
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    result = evaluate_drawing(pipe, AltCLIPScorer.from_pipeline(pipe), language, count=12, n=4, steps=10)
    assert result.top1 >= 75, result
    assert result.one_of_n >= 75, result


@pytest.mark.parametrize("language", in_full("en", "zh"))
def test_both_things_of_an_unseen_scene_are_recognised(language: str) -> None:
    """A small sample, so with a margin."""
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    result = evaluate_scenes(pipe, language, places=True, count=20, steps=10)
    assert result.both >= 30, result


@pytest.mark.full
def test_the_scorer_chooses_what_the_unet_left_to_chance() -> None:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    result = evaluate_drawing(pipe, AltCLIPScorer.from_pipeline(pipe), "zh", count=12, n=8, steps=6, drawn_from="name")
    assert result.best_of_n >= result.one_of_n + 10, result


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in emoji_m9_folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    card = (emoji_m9_folder() / "README.md").read_text(encoding="utf-8")
    for word in ("license", "Noto Color Emoji", "CLDR"):
        assert word in card


@torch.no_grad()
def test_transformers_reads_its_scorer() -> None:
    theirs = AltCLIPModel.from_pretrained(emoji_m9_folder() / "scorer")
    ours = AltCLIPScorer.from_pretrained("emoji-m9")
    encoded = ours.processor.tokenizer(["猫", "a red apple"], padding=True, return_tensors="pt")
    expected = theirs.get_text_features(**encoded).pooler_output
    torch.testing.assert_close(ours.get_text_features(**encoded), expected, atol=1e-5, rtol=0)
