"""Best-of-N with half the work."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from PIL import Image

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from altdiffusion_clip.images import load_image
from altdiffusion_clip.pipelines.alt_diffusion.halving import may_win, plan_drafts
from tests.pictures import held_out_pictures

PROMPT = "蓝色背景上的猫"
SETTINGS = {"num_inference_steps": 10, "guidance_scale": 3.0, "batch_size": 4}


@pytest.fixture(scope="module")
def emoji(quick_model: Path) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def work(emoji: AltDiffusionPipeline) -> Iterator[list[int]]:
    """Rows that went through the UNet, at each of its steps."""
    rows: list[int] = []
    hook = emoji.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    yield rows
    hook.remove()


@pytest.mark.full
def test_about_half_the_work_for_nearly_the_best_of_eight(emoji: AltDiffusionPipeline, work: list[int]) -> None:
    spent, gained = {}, {}
    for strategy in ("full", "halving"):
        work.clear()
        best = [
            emoji.best_of(prompt, n=8, strategy=strategy, guidance_scale=3.0, num_inference_steps=20, batch_size=8)
            for prompt in ("蓝色背景上的猫", "пингвин")
        ]
        spent[strategy], gained[strategy] = sum(work), sum(each.scores[0] for each in best)
        if strategy == "full":
            at_random = sum(float(np.mean(list(each.all_scores.values()))) for each in best)
    assert spent["halving"] <= 0.6 * spent["full"], "of two prompts; benchmarks/halving.py has the mean of many"
    assert gained["halving"] - at_random >= 0.8 * (gained["full"] - at_random)


def test_what_is_kept_is_the_picture_that_its_seed_draws(emoji: AltDiffusionPipeline) -> None:
    full = emoji.best_of(PROMPT, n=8, keep=8, **SETTINGS)
    halved = emoji.best_of(PROMPT, n=8, strategy="halving", **SETTINGS)
    (seed,) = halved.seeds
    assert halved.scores[0] == pytest.approx(full.all_scores[seed], abs=1e-4)
    assert 1 <= len(halved.all_scores) <= 3, "finalists alone were drawn to the end"
    assert max(halved.all_scores, key=halved.all_scores.__getitem__) == seed


def test_as_many_are_kept_as_are_asked_for(emoji: AltDiffusionPipeline) -> None:
    best = emoji.best_of(PROMPT, n=6, keep=2, strategy="halving", **SETTINGS)
    assert len(best.images) == len(best.seeds) == 2
    assert best.scores[0] >= best.scores[1]


def test_where_nothing_is_saved_all_are_drawn(emoji: AltDiffusionPipeline, work: list[int]) -> None:
    best = emoji.best_of(PROMPT, n=3, keep=3, strategy="halving", **SETTINGS)
    assert sorted(best.seeds) == [0, 1, 2]
    assert sum(work) == 2 * 3 * 10


def test_memory_is_that_of_a_batch(emoji: AltDiffusionPipeline, work: list[int]) -> None:
    emoji.best_of(PROMPT, n=8, strategy="halving", **{**SETTINGS, "batch_size": 3})
    assert max(work) == 2 * 3


@pytest.mark.parametrize("kind", [AltDiffusionImg2ImgPipeline, AltDiffusionInpaintPipeline])
@pytest.mark.parametrize("strength", [0.2, 0.8])
def test_pictures_that_begin_with_a_picture(kind: type, strength: float, emoji: AltDiffusionPipeline) -> None:
    pipe = kind(**emoji.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    scorer = AltCLIPScorer.from_pipeline(emoji)
    more: dict[str, object] = {"image": load_image(held_out_pictures()[0].path), "strength": strength}
    if kind is AltDiffusionInpaintPipeline:
        more |= {"mask_image": Image.new("L", (64, 64), 255), "height": 64, "width": 64}
    full = pipe.best_of("苹果", n=4, keep=4, judge=scorer, **SETTINGS, **more)
    halved = pipe.best_of("苹果", n=4, strategy="halving", judge=scorer, **SETTINGS, **more)
    assert halved.scores[0] == pytest.approx(full.all_scores[halved.seeds[0]], abs=1e-4)


@pytest.mark.parametrize("scheduler", [PNDMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_other_schedulers(scheduler: type, emoji: AltDiffusionPipeline) -> None:
    config = {**emoji.scheduler.config, "rescale_betas_zero_snr": False, "timestep_spacing": "leading"}
    config["skip_prk_steps"] = True  # as AltDiffusion has it
    pipe = AltDiffusionPipeline(
        **{**emoji.components, "scheduler": scheduler.from_config(config)}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    scorer = AltCLIPScorer.from_pipeline(emoji)
    halved = pipe.best_of(PROMPT, n=4, strategy="halving", judge=scorer, **SETTINGS)
    full = pipe.best_of(PROMPT, n=4, keep=4, judge=scorer, **SETTINGS)
    assert halved.scores[0] == pytest.approx(full.all_scores[halved.seeds[0]], abs=1e-4)


def test_a_callback_sees_drafts_and_pictures(emoji: AltDiffusionPipeline) -> None:
    steps: list[int] = []

    def look(pipe: object, step: int, timestep: object, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        steps.append(step)
        return tensors

    emoji.best_of(PROMPT, n=4, strategy="halving", callback_on_step_end=look, **SETTINGS)
    assert steps[:3] == [0, 1, 2], "all drafts at once"
    finalists, rest = divmod(len(steps) - 3, 10)
    assert rest == 0
    assert steps[3:] == [*range(10)] * finalists, "then one finalist after the other"


def test_plans_cost_less_than_drawing_all() -> None:
    for n in range(1, 33):
        for keep in range(1, n + 1):
            for steps in (1, 2, 5, 20, 50):
                plan = plan_drafts(n, keep, steps)
                if plan is not None:
                    assert keep <= plan.most < n
                    assert n * plan.steps + plan.most * steps < n * steps


def test_the_next_is_drawn_as_long_as_it_may_win() -> None:
    drafts = [0.30, 0.29, 0.24, 0.10]  # deviation 0.08, so that a draft may be 0.048 behind
    assert may_win(0.30, drafts, [], keep=1), "one is drawn in any case"
    assert may_win(0.29, drafts, [(0.30, 0.35)], keep=1)
    assert not may_win(0.24, drafts, [(0.30, 0.35)], keep=1)
    assert may_win(0.24, drafts, [(0.30, 0.35), (0.29, 0.41)], keep=2), "against the second best, where two are kept"
    assert not may_win(0.24, drafts, [(0.30, 0.35), (0.29, 0.41)], keep=1)
    assert may_win(0.29, drafts, [(0.30, 0.20)], keep=1), "drafts promise what they are, and what others gained"


def test_wrong_use(emoji: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="no strategy 'half'; choose one of full, halving"):
        emoji.best_of(PROMPT, strategy="half")
    with pytest.raises(ValueError, match="halving chooses its own steps, not timesteps"):
        emoji.best_of(PROMPT, strategy="halving", timesteps=[999, 500])
