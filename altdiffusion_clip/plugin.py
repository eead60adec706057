"""The one place that touches diffusers' namespace.

Published AltDiffusion folders name `["alt_diffusion", "RobertaSeriesModelWithTransformation"]`, a package that
diffusers no longer has. `register` adds it, so that every diffusers pipeline finds it. It also adds our pipelines to
the AutoPipelines, and the text encoder of AltDiffusion files to `from_single_file`. It imports nothing: the changes
are made right after diffusers' own modules are imported, whenever that is.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

PACKAGE = "altdiffusion_clip.pipelines.alt_diffusion"
MODELING = f"{PACKAGE}.modeling_roberta_series"
_PIPELINE_NAMES = (
    "AltDiffusionControlNetPipeline",
    "AltDiffusionImg2ImgPipeline",
    "AltDiffusionInpaintPipeline",
    "AltDiffusionPipeline",
)


def _restore_package(pipelines: ModuleType) -> None:
    """Puts our package where diffusers had its own, including the old import path."""
    package = importlib.import_module(PACKAGE)
    sys.modules["diffusers.pipelines.alt_diffusion"] = package
    sys.modules["diffusers.pipelines.alt_diffusion.modeling_roberta_series"] = importlib.import_module(MODELING)
    pipelines.alt_diffusion = package  # type: ignore[attr-defined]
    # diffusers imports its classes lazily, from this table.
    homes: dict[str, str] = vars(pipelines).get("_class_to_module", {})
    for name in _PIPELINE_NAMES:
        homes[name] = "alt_diffusion"


def _extend_auto_pipelines(auto_pipeline: ModuleType) -> None:
    """Lets the AutoPipelines find our pipelines, and convert between them."""
    package = importlib.import_module(PACKAGE)
    for task, name in (("TEXT2IMAGE", ""), ("IMAGE2IMAGE", "Img2Img"), ("INPAINT", "Inpaint")):
        mapping = getattr(auto_pipeline, f"AUTO_{task}_PIPELINES_MAPPING")
        mapping["alt-diffusion"] = getattr(package, f"AltDiffusion{name}Pipeline")
    auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING["alt-diffusion-controlnet"] = package.AltDiffusionControlNetPipeline
    for name in ("Text2Image", "Image2Image", "Inpainting"):
        _carry_our_state(getattr(auto_pipeline, f"AutoPipelineFor{name}"))


def _carry_our_state(auto_class: Any) -> None:
    """Makes an AutoPipeline's `from_pipe` carry over the state that our pipelines keep besides their components."""
    make = auto_class.from_pipe.__func__

    @functools.wraps(make)
    def from_pipe(cls: type, pipeline: Any, **kwargs: Any) -> Any:
        ours = importlib.import_module(f"{PACKAGE}.from_pipe")
        return ours.carry_over(pipeline, make(cls, pipeline, **kwargs))

    auto_class.from_pipe = classmethod(from_pipe)


def _extend_single_file_loading(single_file: ModuleType) -> None:
    """Gives every pipeline's `from_single_file` what it needs for an AltDiffusion file."""
    loader = single_file.FromSingleFileMixin
    load = loader.from_single_file.__func__

    @functools.wraps(load)
    def from_single_file(cls: type, pretrained_model_link_or_path: Any, **kwargs: Any) -> Any:
        ours = importlib.import_module("altdiffusion_clip.pipelines.single_file")
        with ours.single_file_arguments(cls, pretrained_model_link_or_path, kwargs) as arguments:
            return load(cls, pretrained_model_link_or_path, **arguments)

    loader.from_single_file = classmethod(from_single_file)


_AFTER: dict[str, Callable[[ModuleType], None]] = {
    "diffusers.pipelines": _restore_package,
    "diffusers.pipelines.auto_pipeline": _extend_auto_pipelines,
    "diffusers.loaders.single_file": _extend_single_file_loading,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a function on a module right after it is first imported."""

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
                _AFTER[name](sys.modules[name])  # diffusers replaces itself by a lazy module

            loader.exec_module = exec_module
        return spec


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a notice of transformers' imports says anything useful.

    That Pillow prepares pictures where torchvision is missing is no news, and diffusers' imports say it twice.
    """
    return "requires torchvision (not installed); falling back" not in record.getMessage()


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
    logging.getLogger("transformers.utils.import_utils").addFilter(_is_news)
    for name, change in _AFTER.items():
        if name in sys.modules:
            change(sys.modules[name])
