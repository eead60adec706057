"""Everything that AltDiffusion pipelines add to diffusers."""

from altdiffusion_clip.pipelines.alt_diffusion.best_of import AltDiffusionBestOfMixin
from altdiffusion_clip.pipelines.alt_diffusion.defaults import AltDiffusionDefaultsMixin
from altdiffusion_clip.pipelines.alt_diffusion.from_pipe import AltDiffusionFromPipeMixin
from altdiffusion_clip.pipelines.alt_diffusion.loading import AltDiffusionLoaderMixin
from altdiffusion_clip.pipelines.alt_diffusion.lora import AltDiffusionLoraMixin
from altdiffusion_clip.pipelines.alt_diffusion.optimizing import AltDiffusionOptimizeMixin
from altdiffusion_clip.pipelines.alt_diffusion.prompting import AltDiffusionPromptMixin
from altdiffusion_clip.pipelines.alt_diffusion.saving import AltDiffusionSaverMixin


class AltDiffusionMixin(
    AltDiffusionDefaultsMixin,
    AltDiffusionLoaderMixin,
    AltDiffusionSaverMixin,
    AltDiffusionFromPipeMixin,
    AltDiffusionPromptMixin,
    AltDiffusionLoraMixin,
    AltDiffusionBestOfMixin,
    AltDiffusionOptimizeMixin,
):
    """Loading, saving, prompts, LoRAs, best-of-N and speed. It must come before the diffusers class."""
