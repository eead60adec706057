import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from altdiffusion_clip.images import load_image
from tests.pictures import held_out_pictures

PROMPT = "蓝色背景上的猫"
QUICK = {"num_inference_steps": 3, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def pipe(quick_model: Path) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_best_are_kept_in_order(pipe: AltDiffusionPipeline) -> None:
    everything = pipe.best_of(PROMPT, n=5, keep=5, **QUICK)
    best = pipe.best_of(PROMPT, n=5, keep=2, **QUICK)
    assert sorted(everything.seeds) == [0, 1, 2, 3, 4]
    assert best.seeds == everything.seeds[:2]
    assert best.scores == sorted(everything.scores, reverse=True)[:2]
    assert best.all_scores == everything.all_scores
    for kept, of_all in zip(best.images, everything.images, strict=False):
        np.testing.assert_array_equal(np.asarray(kept), np.asarray(of_all))
    ranked = AltCLIPScorer.from_pipeline(pipe).rank(PROMPT, best.images)
    assert [image.index for image in ranked] == [0, 1]


def test_batches_change_nothing(pipe: AltDiffusionPipeline) -> None:
    one, three = (pipe.best_of(PROMPT, n=4, keep=2, seed=7, batch_size=size, **QUICK) for size in (1, 3))
    assert one.seeds == three.seeds
    assert one.scores == pytest.approx(three.scores, abs=1e-4)
    difference = np.abs(np.asarray(one.images[0], int) - np.asarray(three.images[0], int))
    assert difference.max() <= 1


def test_the_scorer_is_loaded_once_and_shares_the_tower(pipe: AltDiffusionPipeline) -> None:
    pipe.best_of(PROMPT, n=1, **QUICK)
    scorer = pipe._own_scorer()
    assert scorer is pipe._own_scorer()
    assert scorer.text_model is pipe.text_encoder


def test_weights_are_no_words_for_the_scorer(pipe: AltDiffusionPipeline) -> None:
    plain = AltCLIPScorer.from_pipeline(pipe)
    best = pipe.best_of("(蓝色:1.2)背景上的猫", n=1, **QUICK)
    assert best.scores[0] == pytest.approx(float(plain.score(PROMPT, best.images[0]).cosine), abs=1e-6)


def test_other_tasks(pipe: AltDiffusionPipeline) -> None:
    redraw = AltDiffusionImg2ImgPipeline.from_pipe(pipe)
    redraw.set_progress_bar_config(disable=True)
    scorer = AltCLIPScorer.from_pipeline(pipe)
    best = redraw.best_of("狗", n=2, judge=scorer, image=Image.new("RGB", (64, 64), "red"), strength=0.9, **QUICK)
    assert best.images[0].size == (64, 64)


def test_pictures_that_are_no_numbers_are_left_out(pipe: AltDiffusionPipeline, caplog) -> None:
    def spoil(pipe, step, time, tensors):
        return {"latents": tensors["latents"] * float("nan")}

    with caplog.at_level(logging.WARNING):
        best = pipe.best_of(PROMPT, n=2, callback_on_step_end=spoil, **QUICK)
    assert best.images == []
    assert "seed 1 is invalid (NaN)" in caplog.text


@pytest.mark.parametrize("kind", [AltDiffusionImg2ImgPipeline, AltDiffusionInpaintPipeline])
def test_batches_change_nothing_where_a_picture_is_given(kind: type, pipe: AltDiffusionPipeline) -> None:
    changing = kind(**pipe.components, requires_safety_checker=False)
    changing.set_progress_bar_config(disable=True)
    more: dict[str, object] = {"image": load_image(held_out_pictures()[0].path), "strength": 0.8}
    if kind is AltDiffusionInpaintPipeline:
        more |= {"mask_image": Image.new("L", (64, 64), 255), "height": 64, "width": 64}
    scorer = AltCLIPScorer.from_pipeline(pipe)
    one, three = (
        changing.best_of(PROMPT, n=3, keep=3, batch_size=size, judge=scorer, **QUICK, **more).all_scores
        for size in (1, 3)
    )
    assert one == pytest.approx(three, abs=1e-4)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 2, "keep": 3}, {"n": 2, "keep": 0}, {"n": 2, "batch_size": 0}])
def test_wrong_calls(wrong: dict[str, int], pipe: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="give"):
        pipe.best_of(PROMPT, **wrong)


@pytest.mark.parametrize("strategy", ["full", "halving"])
def test_an_interrupted_drawing_keeps_what_was_finished(strategy: str, pipe: AltDiffusionPipeline) -> None:
    drawn = []

    def stop(pipe, step, time, tensors):
        if step == 0:
            drawn.append(step)
        pipe._interrupt = len(drawn) > 1  # in the second picture
        return tensors

    steps = {**QUICK, "num_inference_steps": 8}
    best = pipe.best_of(PROMPT, n=8, strategy=strategy, callback_on_step_end=stop, **steps)
    assert len(drawn) == 2
    assert best.seeds == ([0] if strategy == "full" else []), "of drafts nothing is finished"


def test_what_the_safety_checker_says_is_told(pipe: AltDiffusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(pipe), "run_safety_checker", lambda self, image, device, dtype: (image, [True] * len(image))
    )
    assert pipe.best_of(PROMPT, n=2, keep=2, **QUICK).nsfw_content_detected == [True, True]
    monkeypatch.undo()
    assert pipe.best_of(PROMPT, n=1, **QUICK).nsfw_content_detected is None


@pytest.mark.parametrize("name", ["output_type", "generator", "num_images_per_prompt", "return_dict"])
def test_what_it_gives_itself_is_refused_in_a_line(name: str, pipe: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match=f"^best_of gives {name} itself; omit it$"):
        pipe.best_of(PROMPT, n=1, **{name: "np"})


def test_scores_that_are_no_numbers_are_left_out(pipe: AltDiffusionPipeline, caplog) -> None:
    scorer = AltCLIPScorer.from_pretrained("emoji-m18")
    real = scorer.get_image_features

    def spoil(pixel_values):
        features = real(pixel_values)
        features[0] = float("nan")
        return features

    scorer.get_image_features = spoil
    with caplog.at_level(logging.WARNING):
        best = pipe.best_of(PROMPT, n=4, keep=4, batch_size=2, judge=scorer, **QUICK)
    assert sorted(best.seeds) == [1, 3]
    assert "seed 0 is left out: the score is not a number" in caplog.text
