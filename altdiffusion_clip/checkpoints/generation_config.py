"""How a model is best drawn with, where its folder says so: `generation_config.json`, as transformers names it."""

import json
from pathlib import Path
from typing import Any

from altdiffusion_clip.checkpoints.model_ids import resolve

GENERATION_CONFIG = "generation_config.json"
_KINDS: dict[str, tuple[type, ...]] = {"guidance_scale": (int, float), "num_inference_steps": (int,)}


def read_generation_config(model: str) -> dict[str, Any]:
    """Settings that a model's folder states: `guidance_scale`, `num_inference_steps`, or neither.

    Args:
        model: its name, or its folder; nothing is fetched.

    Example:
        >>> read_generation_config("emoji-m9")
        {'guidance_scale': 3.0}
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
