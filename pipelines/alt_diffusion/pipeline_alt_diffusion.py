"""Text to image with AltDiffusion."""

from diffusers import StableDiffusionPipeline

from altdiffusion_clip.pipelines.alt_diffusion.defaults import drawing_call
from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionPipeline(AltDiffusionMixin, StableDiffusionPipeline):
    """Draws pictures from prompts in all languages of its text encoder.

    This is diffusers' Stable Diffusion pipeline with another text encoder. It supports everything that
    `StableDiffusionPipeline` does.

    Example:
        >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("蓝色背景上的猫", num_inference_steps=2).images[0].size
        (128, 128)
    """

    __call__ = drawing_call(StableDiffusionPipeline)
