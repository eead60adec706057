"""Image to image with AltDiffusion."""

from typing import Any

from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from altdiffusion_clip.pipelines.alt_diffusion.defaults import drawing_call
from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionImg2ImgPipeline(AltDiffusionMixin, StableDiffusionImg2ImgPipeline):
    """Redraws a picture from a prompt, as diffusers' `StableDiffusionImg2ImgPipeline` does.

    Example:
        >>> from PIL import Image
        >>> pipe = AltDiffusionImg2ImgPipeline.from_pretrained("emoji-m18")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("狗", image=Image.new("RGB", (128, 128), "red"), strength=0.5, num_inference_steps=4).images[0].size
        (128, 128)
    """

    __call__ = drawing_call(StableDiffusionImg2ImgPipeline)

    def get_timesteps(self, num_inference_steps: int, strength: float, device: Any) -> tuple[Tensor, int]:
        """The steps that remain for a strength.

        Raises:
            ValueError: there are none. diffusers would fail deep inside the UNet.
        """
        timesteps, steps = super().get_timesteps(num_inference_steps, strength, device)
        if steps < 1:
            raise ValueError(
                f"strength {strength} of {num_inference_steps} steps leaves no step to draw; give more of either"
            )
        return timesteps, steps
