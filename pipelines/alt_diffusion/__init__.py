"""The `diffusers.pipelines.alt_diffusion` that published checkpoints name. Classes are imported on first use."""

import importlib
from typing import Any

_HOME = {
    "AltDiffusionControlNetPipeline": "pipeline_alt_diffusion_controlnet",
    "AltDiffusionImg2ImgPipeline": "pipeline_alt_diffusion_img2img",
    "AltDiffusionInpaintPipeline": "pipeline_alt_diffusion_inpaint",
    "AltDiffusionPipeline": "pipeline_alt_diffusion",
    "RobertaSeriesConfig": "modeling_roberta_series",
    "RobertaSeriesModelWithTransformation": "modeling_roberta_series",
    "TransformationModelOutput": "modeling_roberta_series",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
