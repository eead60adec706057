"""AltDiffusion and AltCLIP for today's diffusers and transformers.

Importing this package registers the plug-in (see `altdiffusion_clip.plugin`): from then on every diffusers
pipeline loads published AltDiffusion folders. The names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from altdiffusion_clip import plugin

if TYPE_CHECKING:
    from altdiffusion_clip.drawing.generation import generate
    from altdiffusion_clip.judges.judging import rank
    from altdiffusion_clip.judges.names import load_judge
    from altdiffusion_clip.judges.sentence_encoder import SentenceEncoder
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion_controlnet import (
        AltDiffusionControlNetPipeline,
    )
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion_img2img import AltDiffusionImg2ImgPipeline
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion_inpaint import AltDiffusionInpaintPipeline
    from altdiffusion_clip.processing import AltCLIPProcessor
    from altdiffusion_clip.scoring import AltCLIPScorer
    from altdiffusion_clip.scoring import AltCLIPScorer as AltCLIP
    from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

__version__ = "0.2.0"
__all__ = [
    "AltCLIP",
    "AltCLIPProcessor",
    "AltCLIPScorer",
    "AltDiffusionControlNetPipeline",
    "AltDiffusionImg2ImgPipeline",
    "AltDiffusionInpaintPipeline",
    "AltDiffusionPipeline",
    "RobertaSeriesConfig",
    "RobertaSeriesModelWithTransformation",
    "SentenceEncoder",
    "generate",
    "load_judge",
    "rank",
]

_HOME = {
    "AltCLIPProcessor": "altdiffusion_clip.processing",
    "AltCLIPScorer": "altdiffusion_clip.scoring",
    "AltDiffusionControlNetPipeline": "altdiffusion_clip.pipelines.alt_diffusion",
    "AltDiffusionImg2ImgPipeline": "altdiffusion_clip.pipelines.alt_diffusion",
    "AltDiffusionInpaintPipeline": "altdiffusion_clip.pipelines.alt_diffusion",
    "AltDiffusionPipeline": "altdiffusion_clip.pipelines.alt_diffusion",
    "RobertaSeriesConfig": "altdiffusion_clip.text_encoder",
    "RobertaSeriesModelWithTransformation": "altdiffusion_clip.text_encoder",
    "SentenceEncoder": "altdiffusion_clip.judges.sentence_encoder",
    "generate": "altdiffusion_clip.drawing.generation",
    "load_judge": "altdiffusion_clip.judges.names",
    "rank": "altdiffusion_clip.judges.judging",
}


def __getattr__(name: str) -> Any:
    if name == "AltCLIP":  # as FlagAI and the model cards call it
        name = "AltCLIPScorer"
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


plugin.register()
