"""Inpainting with AltDiffusion."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionInpaintPipeline, UNet2DConditionModel

from altdiffusion_clip.pipelines.alt_diffusion.defaults import drawing_call
from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin

_draw = drawing_call(StableDiffusionInpaintPipeline)


@contextmanager
def _taken_as_plain(unet: UNet2DConditionModel, vae: AutoencoderKL) -> Iterator[None]:
    """Makes diffusers treat a UNet as one that takes only latents, without a mask.

    It recognises such a UNet by its four channels and rejects others, although nothing depends on their number.
    """
    channels = unet.config.in_channels
    if channels == 4 or channels != vae.config.latent_channels:
        yield
        return
    unet.register_to_config(in_channels=4)
    try:
        yield
    finally:
        unet.register_to_config(in_channels=channels)


class AltDiffusionInpaintPipeline(AltDiffusionMixin, StableDiffusionInpaintPipeline):
    """Redraws the white part of a mask from a prompt, as diffusers' `StableDiffusionInpaintPipeline` does.

    Example:
        >>> from PIL import Image
        >>> pipe = AltDiffusionInpaintPipeline.from_pretrained("emoji-m18")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> picture, mask = Image.new("RGB", (128, 128), "red"), Image.new("L", (128, 128), 255)
        >>> pipe("狗", image=picture, mask_image=mask, height=128, width=128, num_inference_steps=2).images[0].size
        (128, 128)
    """

    @functools.wraps(StableDiffusionInpaintPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Like `StableDiffusionInpaintPipeline`, but for any number of latent channels."""
        with _taken_as_plain(self.unet, self.vae):
            return _draw(self, *args, **kwargs)
