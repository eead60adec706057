"""Pipelines of the parts of another: both go on drawing, with the dtypes and the state that there were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image, ControlNetModel
from PIL import Image

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionControlNetPipeline,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from tests.conftest import in_full

SMALL: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}
PICTURE = Image.new("RGB", (64, 64), "red")


def load(published: Path, **kwargs: Any) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None, **kwargs)
    pipe.unet.register_to_config(sample_size=16)  # 64 pixels where no size is given
    pipe.set_progress_bar_config(disable=True)
    return pipe


def dtypes(pipe: Any) -> dict[str, torch.dtype]:
    return {name: getattr(pipe, name).dtype for name in ("unet", "vae", "text_encoder")}


def draws(pipe: Any) -> None:
    pipe.set_progress_bar_config(disable=True)
    more: dict[str, Any] = {}
    if not isinstance(pipe, AltDiffusionPipeline):
        more = {"image": PICTURE, "strength": 1.0}
    if isinstance(pipe, AltDiffusionInpaintPipeline):
        more |= {"mask_image": Image.new("L", (64, 64), 255), "height": 64, "width": 64}
    images = pipe("猫", **SMALL, **more).images
    assert images.shape[-1] == 3


@pytest.mark.parametrize(
    "kind", [AltDiffusionImg2ImgPipeline, *in_full(AltDiffusionInpaintPipeline, AltDiffusionPipeline)]
)
def test_both_draw_after_optimize(kind: Any, published: Path) -> None:
    pipe = load(published)
    done = pipe.optimize(half=True)
    other = kind.from_pipe(pipe)
    assert (
        dtypes(other) == dtypes(pipe) == {"unet": torch.bfloat16, "vae": torch.bfloat16, "text_encoder": torch.float32}
    )
    draws(pipe)
    draws(other)
    with pytest.raises(ValueError, match="optimized"):
        other.optimize()
    done.undo()
    assert dtypes(pipe)["unet"] == torch.float32
    draws(pipe)
    draws(other)


def test_a_half_stays_a_half_and_a_named_dtype_counts(published: Path) -> None:
    pipe = load(published, dtype=torch.bfloat16)
    other = AltDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert set(dtypes(other).values()) == {torch.bfloat16}
    draws(pipe)
    draws(other)
    assert set(dtypes(AltDiffusionImg2ImgPipeline.from_pipe(pipe, dtype=torch.float32)).values()) == {torch.float32}
    draws(pipe)


def test_a_cast_after_optimize_goes_on_drawing(published: Path) -> None:
    pipe = load(published)
    pipe.optimize(half=True)
    for dtype in (torch.float32, torch.bfloat16):
        pipe.to(dtype)
        draws(pipe)


@pytest.mark.parametrize("make", [AltDiffusionImg2ImgPipeline.from_pipe, AutoPipelineForImage2Image.from_pipe])
def test_the_state_is_carried_over(make: Any, published: Path) -> None:
    pipe = load(published)
    pipe.enable_long_prompts(3)
    pipe("猫", **SMALL)
    pipe._scorer_of_text_encoder = AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")
    other = make(pipe)
    assert isinstance(other, AltDiffusionImg2ImgPipeline)
    assert other._prompt_windows == 3
    assert other._prompts_kept is pipe._prompts_kept
    assert other._own_scorer() is pipe._scorer_of_text_encoder


def test_auto_pipelines_take_a_controlnet(published: Path) -> None:
    pipe = load(published)
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16, 16))
    other = AutoPipelineForText2Image.from_pipe(pipe, controlnet=controlnet)
    assert isinstance(other, AltDiffusionControlNetPipeline)
    assert isinstance(AutoPipelineForText2Image.from_pipe(other, controlnet=None), AltDiffusionPipeline)


def test_one_side_alone_counts(published: Path) -> None:
    pipe = load(published)
    usual = pipe("猫", **SMALL).images.shape
    side = usual[1]
    assert pipe("猫", width=side + 16, **SMALL).images.shape[1:3] == (side, side + 16)
    assert pipe("猫", side + 32, **SMALL).images.shape[1:3] == (side + 32, side)
