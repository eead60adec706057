"""Image to image with AltDiffusion."""

from diffusers import StableDiffusionImg2ImgPipeline

from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionImg2ImgPipeline(AltDiffusionMixin, StableDiffusionImg2ImgPipeline):
    """Redraws a picture after a prompt, as diffusers' `StableDiffusionImg2ImgPipeline` does.

    Example:
        >>> from PIL import Image
        >>> pipe = AltDiffusionImg2ImgPipeline.from_pretrained("emoji-m9")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("狗", image=Image.new("RGB", (64, 64), "red"), strength=0.5, num_inference_steps=4).images[0].size
        (64, 64)
    """
