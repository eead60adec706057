"""Text to image with AltDiffusion, guided by a ControlNet."""

from diffusers import StableDiffusionControlNetPipeline

from altdiffusion_clip.pipelines.alt_diffusion.defaults import drawing_call
from altdiffusion_clip.pipelines.alt_diffusion.mixin import AltDiffusionMixin


class AltDiffusionControlNetPipeline(AltDiffusionMixin, StableDiffusionControlNetPipeline):
    """Draws pictures from prompts and a control picture, as diffusers' `StableDiffusionControlNetPipeline` does.

    Example:
        >>> from diffusers import ControlNetModel
        >>> from PIL import Image
        >>> from altdiffusion_clip import AltDiffusionPipeline
        >>> text_to_image = AltDiffusionPipeline.from_pretrained("emoji-m18")
        >>> controlnet = ControlNetModel.from_unet(text_to_image.unet)
        >>> pipe = AltDiffusionControlNetPipeline.from_pretrained("emoji-m18", controlnet=controlnet)
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("狗", image=Image.new("RGB", (128, 128)), num_inference_steps=2).images[0].size
        (128, 128)
    """

    __call__ = drawing_call(StableDiffusionControlNetPipeline)
