import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionImg2ImgPipeline


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("m", ["m9", "m18"])
def test_golden_pictures(m: str, offload: bool, published, golden) -> None:
    folder = published / f"alt-diffusion-{m}-tiny"
    pipe = AltDiffusionImg2ImgPipeline.from_pretrained(folder, offload_embeddings=offload)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        str(golden["prompts"][2]),
        image=Image.open(published / "init.png").convert("RGB"),
        strength=0.75,
        num_inference_steps=8,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    np.testing.assert_allclose(picture, golden[f"{m}.img2img"], atol=1e-5)
