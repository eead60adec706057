"""The one place that touches diffusers' namespace.

Published AltDiffusion folders name `["alt_diffusion", "RobertaSeriesModelWithTransformation"]`, a package that
diffusers no longer has. `register` puts ours there, so that every diffusers pipeline finds it, and lets
AutoPipelineForText2Image know the pipeline. Nothing is imported for it: the changes are made right after
diffusers' own modules are, whenever that is.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

PACKAGE = "altdiffusion_clip.pipelines.alt_diffusion"
MODELING = f"{PACKAGE}.modeling_roberta_series"
_PIPELINE_NAMES = ("AltDiffusionPipeline",)


def _restore_package(pipelines: ModuleType) -> None:
    """Puts our package where diffusers' was, under its old import path too."""
    package = importlib.import_module(PACKAGE)
    sys.modules["diffusers.pipelines.alt_diffusion"] = package
    sys.modules["diffusers.pipelines.alt_diffusion.modeling_roberta_series"] = importlib.import_module(MODELING)
    pipelines.alt_diffusion = package  # type: ignore[attr-defined]
    # diffusers imports its classes when they are first used, by this table.
    homes: dict[str, str] = vars(pipelines).get("_class_to_module", {})
    for name in _PIPELINE_NAMES:
        homes[name] = "alt_diffusion"


def _extend_auto_pipeline(auto_pipeline: ModuleType) -> None:
    package = importlib.import_module(PACKAGE)
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING["alt-diffusion"] = package.AltDiffusionPipeline


_AFTER: dict[str, Callable[[ModuleType], None]] = {
    "diffusers.pipelines": _restore_package,
    "diffusers.pipelines.auto_pipeline": _extend_auto_pipeline,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a function on a module right after the module was first imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _AFTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _AFTER[name](sys.modules[name])  # diffusers puts a lazy module in its own place

            loader.exec_module = exec_module
        return spec


def register() -> None:
    """Makes published AltDiffusion folders load in diffusers' pipelines. Calling it again does nothing.

    Example:
        >>> register()
        >>> from diffusers.pipelines.alt_diffusion.modeling_roberta_series import RobertaSeriesConfig
        >>> RobertaSeriesConfig.model_type
        'xlm-roberta'
    """
    if any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _AfterImport())
    for name, change in _AFTER.items():
        if name in sys.modules:
            change(sys.modules[name])
