"""Schedulers by their short names: each draws what is asked for."""

import pytest
import torch

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import SCHEDULERS, scheduler_like, scheduler_name


@pytest.fixture(scope="module")
def pipe() -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_draws_a_cat(name: str, pipe: AltDiffusionPipeline) -> None:
    own = pipe.scheduler
    how = {"num_inference_steps": 15, "guidance_scale": 3.0, "scheduler": name}
    settings = Settings("蓝色背景上的猫", 0, (0,), "emoji-m18", **how)
    (picture,) = draw_batch(pipe, settings)
    assert [thing.names["en"] for thing in recognise(picture).things] == ["cat"]
    assert pipe.scheduler is own, "it is lent"


def test_the_models_betas_and_prediction_are_kept(pipe: AltDiffusionPipeline) -> None:
    other = scheduler_like(pipe.scheduler, "ddim")
    assert other is not pipe.scheduler
    assert other.config.prediction_type == "v_prediction"
    torch.testing.assert_close(other.alphas_cumprod, pipe.scheduler.alphas_cumprod)
    assert type(scheduler_like(pipe.scheduler, "")) is type(pipe.scheduler)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_webuis_names(name: str, pipe: AltDiffusionPipeline) -> None:
    given = f" {SCHEDULERS[name].sampler.upper()}"
    assert scheduler_name(given) == name
    assert Settings("猫", 0, (0,), "emoji-m18", scheduler=given).scheduler == name
    assert type(scheduler_like(pipe.scheduler, given)).__name__ == SCHEDULERS[name].diffusers


def test_karras_spaces_the_steps_otherwise(pipe: AltDiffusionPipeline) -> None:
    plain, karras = scheduler_like(pipe.scheduler, "DPM++ 2M"), scheduler_like(pipe.scheduler, "DPM++ 2M Karras")
    for each in (plain, karras):
        each.set_timesteps(10)
    assert plain.timesteps.tolist() != karras.timesteps.tolist()


def test_a_name_that_there_is_not(pipe: AltDiffusionPipeline) -> None:
    with pytest.raises(UserError, match="choose one of ddim, deis"):
        scheduler_like(pipe.scheduler, "magic")
