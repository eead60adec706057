"""Inpainting with AltDiffusion."""

from diffusers import StableDiffusionInpaintPipeline

from altdiffusion_clip.pipelines.alt_diffusion.defaults import drawing_call
from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionInpaintPipeline(AltDiffusionMixin, StableDiffusionInpaintPipeline):
    """Redraws the white part of a mask after a prompt, as diffusers' `StableDiffusionInpaintPipeline` does.

    Example:
        >>> from PIL import Image
        >>> pipe = AltDiffusionInpaintPipeline.from_pretrained("emoji-m9")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> picture, mask = Image.new("RGB", (64, 64), "red"), Image.new("L", (64, 64), 255)
        >>> pipe("狗", image=picture, mask_image=mask, height=64, width=64, num_inference_steps=2).images[0].size
        (64, 64)
    """

    __call__ = drawing_call(StableDiffusionInpaintPipeline)
