"""Saves folders that load anywhere: without adapters in the weights, and without local paths."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers import DiffusionPipeline

from altdiffusion_clip.adapters import adapters_set_aside
from altdiffusion_clip.files import write_text

logger = logging.getLogger(__name__)
_PATH = "_name_or_path"


class AltDiffusionSaverMixin(DiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`save_pretrained` for every AltDiffusion pipeline. It must come before the diffusers class."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Saves the pipeline, like `diffusers.DiffusionPipeline.save_pretrained`.

        Loaded LoRAs are left out with a warning; `save_lora_weights` saves them. (transformers would save a text
        encoder's LoRA instead of the text encoder.)
        """
        with adapters_set_aside(getattr(self, "unet", None), getattr(self, "text_encoder", None)) as names:
            super().save_pretrained(save_directory, *args, **kwargs)
        if names:
            logger.warning(
                "saved without the LoRAs %s; save_lora_weights saves them, or fuse_lora() puts them into the weights",
                ", ".join(names),
            )
        forget_paths(Path(save_directory))


def forget_paths(folder: Path) -> None:
    """Removes the local paths of components from the configurations of a saved folder. Hub ids stay."""
    for path in [*folder.glob("*.json"), *folder.glob("*/config.json")]:
        config = json.loads(path.read_text(encoding="utf-8"))
        if _forget(config):
            write_text(path, json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _forget(config: Any) -> bool:
    """Removes local paths from a configuration and nested ones. Returns whether there were any."""
    if not isinstance(config, dict):
        return False
    found = [_forget(part) for part in config.values()]
    place = config.get(_PATH)
    if isinstance(place, str) and (Path(place).is_absolute() or Path(place).exists()):
        del config[_PATH]
        return True
    return any(found)
