"""Best-of-N by halving."""

import functools

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.images import load_image
from altdiffusion_clip.pipelines.alt_diffusion.halving import expected_of, points

PROMPT = "蓝色背景上的猫"


@pytest.fixture(scope="module")
def emoji() -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def counted(pipe: AltDiffusionPipeline) -> tuple[list[int], torch.utils.hooks.RemovableHandle]:
    """How many rows go through the UNet at each step."""
    rows: list[int] = []
    return rows, pipe.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))


def test_the_survivor_is_the_picture_that_its_seed_draws_alone(emoji: AltDiffusionPipeline) -> None:
    full = emoji.best_of(PROMPT, n=6, num_inference_steps=10, guidance_scale=3.0, batch_size=6, keep=6)
    rows, hook = counted(emoji)
    halved = emoji.best_of(PROMPT, n=6, num_inference_steps=10, guidance_scale=3.0, strategy="halving")
    hook.remove()
    (seed,) = halved.seeds
    assert halved.cosine[0] == pytest.approx(full.all_cosines[seed], abs=1e-4)
    assert halved.all_cosines == {seed: halved.cosine[0]}
    # With guidance two rows a picture: six pictures, then three, two and one.
    assert rows == [2 * count for count in (6, 6, 6, 6, 3, 3, 2, 2, 1, 1)]


def test_as_many_are_kept_as_are_asked_for(emoji: AltDiffusionPipeline) -> None:
    best = emoji.best_of(PROMPT, n=5, keep=2, num_inference_steps=4, guidance_scale=3.0, strategy="halving")
    assert len(best.images) == len(best.seeds) == 2
    assert best.cosine[0] >= best.cosine[1]
    everything = emoji.best_of(PROMPT, n=3, keep=3, num_inference_steps=2, guidance_scale=3.0, strategy="halving")
    assert sorted(everything.seeds) == [0, 1, 2]


def test_without_guidance(emoji: AltDiffusionPipeline) -> None:
    rows, hook = counted(emoji)
    emoji.best_of(PROMPT, n=4, num_inference_steps=4, guidance_scale=1.0, strategy="halving")
    hook.remove()
    assert rows[0] == 4
    assert rows[-1] == 1


def test_image_to_image() -> None:
    pipe = AltDiffusionImg2ImgPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    start = load_image(held_out_pictures()[0].path)
    arguments = {"image": start, "strength": 0.6, "num_inference_steps": 10, "guidance_scale": 3.0}
    halved = pipe.best_of("红苹果", n=4, strategy="halving", **arguments)
    full = pipe.best_of("红苹果", n=4, keep=4, batch_size=4, **arguments)
    assert halved.cosine[0] == pytest.approx(full.all_cosines[halved.seeds[0]], abs=1e-4)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        functools.partial(DDIMScheduler.from_config, eta=1.0),
        DDPMScheduler,
        PNDMScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        DEISMultistepScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
    ],
    ids=lambda kind: getattr(kind, "__name__", "DDIM, eta"),
)
def test_schedulers_and_what_they_remember(emoji: AltDiffusionPipeline, scheduler) -> None:
    """The survivor is that of a run whose batch was never cut."""
    make = scheduler if isinstance(scheduler, functools.partial) else scheduler.from_config
    # Published AltDiffusions have an ordinary schedule; some schedulers know no other.
    config = {**emoji.scheduler.config, "rescale_betas_zero_snr": False, "timestep_spacing": "leading"}
    pipe = AltDiffusionPipeline(**{**emoji.components, "scheduler": make(config)}, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    scorer = AltCLIPScorer.from_pipeline(emoji)
    arguments = {"num_inference_steps": 8, "guidance_scale": 3.0}
    halved = pipe.best_of(PROMPT, n=4, strategy="halving", scorer=scorer, **arguments)
    full = pipe.best_of(PROMPT, n=4, keep=4, batch_size=4, scorer=scorer, **arguments)
    assert halved.cosine[0] == pytest.approx(full.all_cosines[halved.seeds[0]], abs=1e-4)
    assert "step" not in vars(pipe.scheduler)


def test_the_estimate_of_a_schedule_is_the_schedulers_own() -> None:
    """Where a scheduler says what it expects, the formula of the noise schedule says the same."""
    torch.manual_seed(0)
    sample, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    for kind in ("epsilon", "v_prediction", "sample"):
        scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
        scheduler.set_timesteps(10)
        own = scheduler.step(output, scheduler.timesteps[4], sample)
        formula = expected_of(scheduler, object(), output, scheduler.timesteps[4], sample)
        torch.testing.assert_close(formula, own.pred_original_sample, atol=1e-5, rtol=0)


def test_points_spend_no_more_than_they_should() -> None:
    for n in range(2, 33):
        for keep in range(1, n):
            at = points(n, keep, 50)
            assert list(at.values())[-1] == keep
            assert list(at.values()) == sorted(at.values(), reverse=True)
    assert points(4, 4, 20) == {}
    assert points(8, 1, 1) == {0: 1}


def test_wrong_use(emoji: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="no strategy 'half'; choose one of full, halving"):
        emoji.best_of(PROMPT, strategy="half")
    with pytest.raises(ValueError, match="needs callback_on_step_end for itself"):
        emoji.best_of(PROMPT, n=2, strategy="halving", callback_on_step_end=lambda *given: {})
    inpaint = AltDiffusionInpaintPipeline(**emoji.components, requires_safety_checker=False)
    with pytest.raises(ValueError, match="not for AltDiffusionInpaintPipeline"):
        inpaint.best_of(PROMPT, n=2, strategy="halving", scorer=AltCLIPScorer.from_pipeline(emoji))
