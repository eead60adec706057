"""Inpainting with an autoencoder of another number of latent channels than Stable Diffusion's four."""

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionInpaintPipeline
from altdiffusion_clip.emoji.concepts import find_concept, find_ground
from altdiffusion_clip.emoji.scenes import Scene


@pytest.fixture(scope="module")
def pipe() -> AltDiffusionInpaintPipeline:
    pipe = AltDiffusionInpaintPipeline.from_pretrained("emoji-m18")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_what_is_not_masked_stays(pipe: AltDiffusionInpaintPipeline) -> None:
    picture = Scene("one", (find_concept("cat"),), find_ground("blue"), arrangement=1).render()
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (0, 0, 128, 64))
    drawn = pipe(
        "蓝色背景上的狗",
        image=picture,
        mask_image=mask,
        num_inference_steps=6,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    before = np.asarray(picture, np.float32) / 255
    assert np.abs(drawn[80:] - before[80:]).mean() < 0.03
    assert np.abs(drawn[:56] - before[:56]).mean() > 0.05
    assert pipe.unet.config.in_channels == 8, "as it was"


def test_a_call_that_fails_leaves_the_unet_as_it_was(pipe: AltDiffusionInpaintPipeline) -> None:
    with pytest.raises(ValueError, match="incorrect format"):
        pipe("狗", image=Image.new("RGB", (128, 128)), num_inference_steps=1)
    assert pipe.unet.config.in_channels == 8
