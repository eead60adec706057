"""Loading what a command names, with one line for a name that cannot be loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9, resolve
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    import torch

    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
    from altdiffusion_clip.scoring import AltCLIPScorer


def load_pipeline(model: str, device: "torch.device", dtype: "torch.dtype") -> "AltDiffusionPipeline":
    """Loads the pipeline of a folder or hub id.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from altdiffusion_clip import AltDiffusionPipeline

    _check_folder(model, "model_index.json")
    try:
        pipeline = AltDiffusionPipeline.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"cannot load {model}: {_one_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def load_scorer(model: str, device: "torch.device", dtype: "torch.dtype") -> "AltCLIPScorer":
    """Loads the AltCLIP of a folder or hub id.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from altdiffusion_clip import AltCLIPScorer

    try:
        return AltCLIPScorer.from_pretrained(model, dtype=dtype).to(device).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"cannot load a scorer from {model}: {_one_line(error)}") from error


def _check_folder(model: str, needed: str) -> None:
    place = Path(resolve(model))
    looks_local = place.exists() or model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_local and not (place / needed).is_file():
        reason = f"has no {needed}" if place.is_dir() else "is not a folder"
        raise UserError(f"{model} {reason}; give a diffusers folder, a hub id, or {EMOJI_M9}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
