"""The old import path of the text encoder in `altdiffusion_clip.text_encoder`."""

import importlib
from typing import Any

__all__ = ["RobertaSeriesConfig", "RobertaSeriesModelWithTransformation", "TransformationModelOutput"]


def __getattr__(name: str) -> Any:
    # Imported on first use, because the plug-in registers this module long before transformers is needed.
    if name in __all__:
        return getattr(importlib.import_module("altdiffusion_clip.text_encoder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
