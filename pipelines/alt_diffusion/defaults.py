"""Makes pipelines use a model's own defaults."""

import functools
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffusers import DiffusionPipeline

from altdiffusion_clip.checkpoints.generation_config import GENERATION_CONFIG, read_generation_config
from altdiffusion_clip.files import write_text


def drawing_call(kind: type) -> Callable[..., Any]:
    """Wraps the `__call__` of a diffusers pipeline for our subclass of it.

    Arguments that are not given come from the model's `generation_config.json`. If only height or width is given, the
    other is the model's default.

    Args:
        kind: the diffusers pipeline.
    """
    signature = inspect.signature(kind.__call__)  # type: ignore[operator]

    @functools.wraps(kind.__call__)  # type: ignore[operator]
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = signature.bind(self, *args, **kwargs)
        for name, value in self.generation_config.items():
            call.arguments.setdefault(name, value)
        height, width = call.arguments.get("height"), call.arguments.get("width")
        if "height" in signature.parameters and "image" not in call.arguments and (height is None) != (width is None):
            sides = self.unet.config.sample_size
            usual = [side * self.vae_scale_factor for side in ([sides] * 2 if isinstance(sides, int) else sides)]
            call.arguments |= {"height": height or usual[0], "width": width or usual[1]}
        return kind.__call__(*call.args, **call.kwargs)  # type: ignore[operator]

    return __call__


class AltDiffusionDefaultsMixin(DiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """Keeps a model's own defaults for drawing. It must come before the diffusers class."""

    _generation_config: dict[str, Any]

    @property
    def generation_config(self) -> dict[str, Any]:
        """Settings that replace diffusers' defaults."""
        return self.__dict__.setdefault("_generation_config", {})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Loads a pipeline, with its `generation_config.json` if it has one."""
        pipeline = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        pipeline.generation_config.update(read_generation_config(os.fspath(pretrained_model_name_or_path)))
        return pipeline  # type: ignore[no-any-return]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves the pipeline, with its `generation_config.json` if it has one."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.generation_config:
            write_text(Path(save_directory) / GENERATION_CONFIG, json.dumps(self.generation_config) + "\n")
