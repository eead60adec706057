"""A model's own defaults for drawing, from `generation_config.json` in its folder."""

import json
from pathlib import Path
from typing import Any

from altdiffusion_clip.checkpoints.model_ids import resolve

GENERATION_CONFIG = "generation_config.json"
_KINDS: dict[str, tuple[type, ...]] = {"guidance_scale": (int, float), "num_inference_steps": (int,)}


def read_generation_config(model: str) -> dict[str, Any]:
    """Reads the defaults in a model's folder: `guidance_scale`, `num_inference_steps`, or neither.

    Args:
        model: its name or folder. Nothing is downloaded.

    Example:
        >>> read_generation_config("emoji-m18")
        {'guidance_scale': 1.5}
        >>> read_generation_config("BAAI/AltDiffusion-m9")
        {}
    """
    path = Path(resolve(model)).expanduser() / GENERATION_CONFIG
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(stated, dict):
        return {}
    return {name: stated[name] for name, kinds in _KINDS.items() if type(stated.get(name)) in kinds}
