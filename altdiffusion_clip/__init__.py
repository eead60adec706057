"""AltDiffusion and AltCLIP for today's diffusers and transformers.

Importing this package registers the plug-in (see `altdiffusion_clip.plugin`): from then on every diffusers
pipeline loads published AltDiffusion folders. The names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from altdiffusion_clip import plugin

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
    from altdiffusion_clip.scoring import AltCLIPScorer
    from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

__version__ = "0.1.0"
__all__ = [
    "AltCLIPScorer",
    "AltDiffusionPipeline",
    "RobertaSeriesConfig",
    "RobertaSeriesModelWithTransformation",
]

_HOME = {
    "AltCLIPScorer": "altdiffusion_clip.scoring",
    "AltDiffusionPipeline": "altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion",
    "RobertaSeriesConfig": "altdiffusion_clip.text_encoder",
    "RobertaSeriesModelWithTransformation": "altdiffusion_clip.text_encoder",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


plugin.register()
