"""Text to image with AltDiffusion."""

import functools
import inspect
from typing import Any

from diffusers import StableDiffusionPipeline

from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionPipeline(AltDiffusionMixin, StableDiffusionPipeline):
    """Draws pictures from prompts in the languages of its text encoder.

    diffusers' own Stable Diffusion pipeline with another text encoder in it: everything that
    `StableDiffusionPipeline` takes and does, this does too.

    Example:
        >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("蓝色背景上的猫", num_inference_steps=2).images[0].size
        (64, 64)
    """

    @functools.wraps(StableDiffusionPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draws, as `StableDiffusionPipeline`; a height or width that is given alone counts, and the other is usual."""
        call = inspect.signature(StableDiffusionPipeline.__call__).bind(self, *args, **kwargs)
        height, width = call.arguments.get("height"), call.arguments.get("width")
        if (height is None) != (width is None):
            sides = self.unet.config.sample_size
            usual = [side * self.vae_scale_factor for side in ([sides] * 2 if isinstance(sides, int) else sides)]
            call.arguments |= {"height": height or usual[0], "width": width or usual[1]}
        return super().__call__(*call.args[1:], **call.kwargs)
