"""Where scripts and checkpoints look for the text encoder, which lives in `altdiffusion_clip.text_encoder`."""

import importlib
from typing import Any

__all__ = ["RobertaSeriesConfig", "RobertaSeriesModelWithTransformation", "TransformationModelOutput"]


def __getattr__(name: str) -> Any:
    # Imported when first used: the plug-in registers this module long before anyone needs transformers.
    if name in __all__:
        return getattr(importlib.import_module("altdiffusion_clip.text_encoder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
