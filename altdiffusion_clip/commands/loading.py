"""Loads what a command names; a name that cannot be loaded gives a one-line error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL, looks_local, resolve, resolve_scorer
from altdiffusion_clip.errors import CheckpointError, UserError, one_line

if TYPE_CHECKING:
    import torch

    from altdiffusion_clip.checkpoints.layouts import Checkpoint
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline


def load_pipeline(model: str, device: "torch.device", dtype: "torch.dtype") -> "AltDiffusionPipeline":
    """Loads the pipeline of a folder, single file or hub id.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from altdiffusion_clip import AltDiffusionPipeline

    with _one_line_for(model):
        pipeline = AltDiffusionPipeline.from_pretrained(model, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def opened(model: str, config: Path | None = None) -> "Checkpoint":
    """Opens a checkpoint without loading it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from altdiffusion_clip.checkpoints.layouts import open_checkpoint
    from altdiffusion_clip.checkpoints.model_ids import fetch

    with _one_line_for(model):
        return open_checkpoint(fetch(model), config)


def brings_scorer(model: str) -> bool:
    """Whether a checkpoint contains an AltCLIP."""
    if Path(model).is_file():
        return "altclip" in opened(model).tensors
    return resolve_scorer(model)[1] is not None


@contextmanager
def _one_line_for(model: str) -> Iterator[None]:
    """Turns whatever goes wrong with a checkpoint into a `UserError`."""
    if looks_local(resolve(model)) and not Path(resolve(model)).exists():
        raise UserError(f"there is no file or folder {model}; give one, or a hub id, or {DEFAULT_MODEL}")
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = one_line(error)
        raise UserError(f"cannot load {model}: {reason}") from error
