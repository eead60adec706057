"""Reads the head of an AltCLIP for a text encoder that is already in memory."""

import logging
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import AltCLIPProcessor, AutoTokenizer, CLIPImageProcessor

from altdiffusion_clip.checkpoints.altclip import TEXT_TOWER
from altdiffusion_clip.checkpoints.companions import write_companions
from altdiffusion_clip.checkpoints.layouts import Checkpoint, Layout
from altdiffusion_clip.checkpoints.model_ids import SCORER
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.checkpoints.towers import ModuleTensors, first_difference
from altdiffusion_clip.errors import CheckpointError
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation

logger = logging.getLogger(__name__)


def altclip_of(checkpoint: Checkpoint) -> CheckpointTensors:
    """Opens the tensors of a checkpoint's AltCLIP.

    Raises:
        CheckpointError: the checkpoint contains no AltCLIP.
    """
    if "altclip" not in checkpoint.tensors:
        raise CheckpointError(
            f"{checkpoint.path} is {checkpoint.layout}, without a scorer; name the AltCLIP that was trained with it"
        )
    return checkpoint.tensors["altclip"]


def processor_of(checkpoint: Checkpoint, tokenizer: str | os.PathLike[str] | None) -> AltCLIPProcessor:
    """Loads the processor of a checkpoint's AltCLIP.

    Args:
        checkpoint: an AltCLIP, or a single file that holds one.
        tokenizer: a folder or hub id with the tokenizer, in case the file has none.
    """
    if checkpoint.layout is Layout.ALTCLIP:
        return AltCLIPProcessor.from_pretrained(checkpoint.path)
    with tempfile.TemporaryDirectory(prefix="altclip-") as folder:
        write_companions(checkpoint, Path(folder), tokenizer)
        place = Path(folder) / SCORER
        return AltCLIPProcessor(CLIPImageProcessor.from_pretrained(place), AutoTokenizer.from_pretrained(place))


def tensors_like(
    tensors: CheckpointTensors, names: list[str], body: RobertaSeriesModelWithTransformation
) -> dict[str, Tensor]:
    """Tensors on a module's device and in its dtype. They stay memory-mapped where that needs no change.

    The temperature stays float32: 100 times a cosine has more digits than half precision can hold.
    """
    dtypes = {name: torch.float32 if name == "logit_scale" else body.dtype for name in names}
    if body.device.type == "cpu" and all(tensors.dtype(name) == dtype for name, dtype in dtypes.items()):
        return tensors.together(names)
    return {name: tensors[name].to(body.device, dtype) for name, dtype in dtypes.items()}


def execution_device(module: RobertaSeriesModelWithTransformation) -> torch.device:
    """The device that a module computes on. Under accelerate's offloading that is not where its weights are kept."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return module.device


def check_towers(body: RobertaSeriesModelWithTransformation, tensors: CheckpointTensors, allow: bool) -> None:
    """Compares a text encoder, ignoring adapters, with the tower that a head was trained with.

    Raises:
        CheckpointError: they differ and that is not allowed. The message names the first tensor that differs.
    """
    tower = tensors.select(lambda name: name.removeprefix(TEXT_TOWER) if name.startswith(TEXT_TOWER) else None)
    name = first_difference(ModuleTensors(body), tower)
    if name is None:
        return
    message = f"this head was trained with another text encoder: {name} differs"
    if not allow:
        raise CheckpointError(f"{message}; pass allow_other_tower=True to use it anyway")
    logger.warning("%s", message)
