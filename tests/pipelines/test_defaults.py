"""A model's folder states how it is best drawn with, and every way of drawing begins there."""

import json
from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.generation_config import GENERATION_CONFIG, read_generation_config
from altdiffusion_clip.drawing.settings import usual_guidance_scale, usual_steps


@pytest.fixture
def pipe(quick_model: Path) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: AltDiffusionPipeline, *arguments: object, **more: object) -> torch.Tensor:
    call = {"output_type": "latent", "generator": torch.Generator().manual_seed(0), **more}
    return pipe("一只猫", *arguments, **call).images


def test_a_call_begins_with_what_the_folder_states(pipe: AltDiffusionPipeline) -> None:
    usual = draw(pipe, num_inference_steps=2)
    assert torch.equal(usual, draw(pipe, num_inference_steps=2, guidance_scale=1.5))
    assert not torch.equal(usual, draw(pipe, num_inference_steps=2, guidance_scale=7.5)), "what is named counts"
    # By its place, as diffusers takes it: height, width, steps, timesteps, sigmas, guidance.
    assert not torch.equal(usual, draw(pipe, 64, 64, 2, None, None, 7.5))


def test_it_is_saved_and_carried_over(pipe: AltDiffusionPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    assert AltDiffusionPipeline.from_pretrained(tmp_path).generation_config == {"guidance_scale": 1.5}
    assert AltDiffusionImg2ImgPipeline.from_pipe(pipe).generation_config == {"guidance_scale": 1.5}


def test_the_commands_and_the_demo_begin_there_too(tmp_path: Path) -> None:
    assert usual_guidance_scale("emoji-m18") == 1.5
    assert usual_guidance_scale("BAAI/AltDiffusion-m9") == 7.5
    (tmp_path / GENERATION_CONFIG).write_text(json.dumps({"guidance_scale": 5, "num_inference_steps": 7}))
    assert usual_guidance_scale(str(tmp_path)) == 5.0
    assert usual_steps(str(tmp_path)) == 7


def test_halving_plans_with_the_steps_that_the_folder_states(pipe: AltDiffusionPipeline) -> None:
    pipe.generation_config["num_inference_steps"] = 4
    rows: list[int] = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    pipe.best_of("一只猫", n=4, strategy="halving", batch_size=4)
    hook.remove()
    assert len(rows) < 20, "drafts and pictures of four steps, not of diffusers' fifty"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"guidance_scale": "5"}', '{"guidance_scale": true, "other": 1}'])
def test_a_file_that_states_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / GENERATION_CONFIG).write_text(text)
    assert read_generation_config(str(tmp_path)) == {}
