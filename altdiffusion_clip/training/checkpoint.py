"""The checkpoint that a run continues from: one file, complete or absent, the same for one process or many."""

import pickle
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from altdiffusion_clip.errors import CheckpointError, one_line
from altdiffusion_clip.files import atomic_path

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_PUT_BACK = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


def save_state(
    path: Path,
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, torch.Tensor] | None,
    counters: dict[str, Any],
) -> None:
    """Writes weights, optimiser, average, loss scale and counters. Every process must call it.

    Raises:
        OSError: the disk is full or cannot be written. The previous checkpoint is still there.
    """
    weights, optimizer_state = get_state_dict(module, optimizer, options=_WHOLE)
    average = None if average is None else {name: whole_tensor(tensor) for name, tensor in average.items()}
    if not accelerator.is_main_process:
        return
    state = {"module": weights, "optimizer": optimizer_state, "average": average, **counters}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # torch's error for a full disk
        raise OSError(one_line(error)) from error


def trained_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The full trained weights of a possibly sharded module, on the CPU. Every process must call it."""
    return {name: whole_tensor(parameter) for name, parameter in module.named_parameters() if parameter.requires_grad}


def load_state(
    path: Path,
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, torch.Tensor] | None,
) -> dict[str, Any]:
    """Restores a checkpoint and returns its counters.

    Raises:
        CheckpointError: it cannot be read, or belongs to another stage.
    """
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        set_state_dict(
            module,
            optimizer,
            model_state_dict=state.pop("module"),
            optim_state_dict=state.pop("optimizer"),
            options=_PUT_BACK,
        )
        averaged = state.pop("average")
        if average is not None:
            for name, tensor in average.items():
                _fill(tensor, averaged[name])
        scale = state.pop("scaler", None)
        if scale is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(scale)
        return {**state, "step": int(state["step"])}
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        reason = one_line(error)
        raise CheckpointError(
            f"{path} is not a checkpoint of this stage ({reason}); move it away to start again"
        ) from error


def _fill(tensor: torch.Tensor, whole: torch.Tensor) -> None:
    """Copies a full tensor into a possibly sharded one."""
    if isinstance(tensor, DTensor):
        whole = distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)
    tensor.copy_(whole)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor of a possibly sharded one, on the CPU."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu()
