"""What every AltDiffusion pipeline adds to diffusers'."""

from altdiffusion_clip.pipelines.alt_diffusion.best_of import AltDiffusionBestOfMixin
from altdiffusion_clip.pipelines.alt_diffusion.loading import AltDiffusionLoaderMixin
from altdiffusion_clip.pipelines.alt_diffusion.lora import AltDiffusionLoraMixin
from altdiffusion_clip.pipelines.alt_diffusion.prompting import AltDiffusionPromptMixin


class AltDiffusionMixin(
    AltDiffusionLoaderMixin, AltDiffusionPromptMixin, AltDiffusionLoraMixin, AltDiffusionBestOfMixin
):
    """Loading, prompts, LoRAs and best-of-N; put it before the diffusers class."""
