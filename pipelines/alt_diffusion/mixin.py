"""What every AltDiffusion pipeline adds to diffusers'."""

from altdiffusion_clip.pipelines.alt_diffusion.best_of import AltDiffusionBestOfMixin
from altdiffusion_clip.pipelines.alt_diffusion.loading import AltDiffusionLoaderMixin
from altdiffusion_clip.pipelines.alt_diffusion.lora import AltDiffusionLoraMixin
from altdiffusion_clip.pipelines.alt_diffusion.optimizing import AltDiffusionOptimizeMixin
from altdiffusion_clip.pipelines.alt_diffusion.prompting import AltDiffusionPromptMixin


class AltDiffusionMixin(
    AltDiffusionLoaderMixin,
    AltDiffusionPromptMixin,
    AltDiffusionLoraMixin,
    AltDiffusionBestOfMixin,
    AltDiffusionOptimizeMixin,
):
    """Loading, prompts, LoRAs, best-of-N and speed; put it before the diffusers class."""
