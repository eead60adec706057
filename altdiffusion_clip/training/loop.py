"""The optimisation loop that all training stages share: schedule, EMA, checkpoints, exact resume.

A stage gives a module and a loss. The batch of a step depends on the step's number alone (`step_generator`),
so a run that was killed and resumed sees the same batches in the same order as one that was not.
"""

import copy
import dataclasses
import logging
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from altdiffusion_clip.files import atomic_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)
Module = TypeVar("Module", bound=nn.Module)
Batch = TypeVar("Batch", bound="DataclassInstance")


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps in all.
        learning_rate: its peak, for AdamW.
        warmup_steps: linear warm-up from zero.
        decay_from: share of the steps after which the cosine decay to zero begins.
        weight_decay: on matrices and filters only.
        max_grad_norm: gradients are clipped to this norm.
        ema_decay: decay of an exponential moving average of the weights; 0 keeps none.
        seed: of the batches and of everything drawn in a step.
        checkpoint_seconds: time between two checkpoints.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    decay_from: float = 0.0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = step / self.steps
        if progress < self.decay_from:
            return self.learning_rate
        progress = (progress - self.decay_from) / (1 - self.decay_from)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's first parameter."""
    return next(module.parameters()).device


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A dataclass of tensors, its tensors moved. Batches are drawn on the CPU, the same ones for any device."""
    return dataclasses.replace(
        batch, **{field.name: getattr(batch, field.name).to(device) for field in dataclasses.fields(batch)}
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends on the seed and the step only."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def optimise(
    module: Module,
    loss_at: Callable[[torch.Generator], Tensor],
    config: LoopConfig,
    checkpoint: Path,
    description: str = "training",
) -> Module:
    """Trains the module's parameters that require gradients, going on from `checkpoint` if it is there.

    Args:
        module: trained in place.
        loss_at: draws a batch from the generator it is given and returns the loss, a scalar. Steps whose
            loss or gradient is not finite are skipped and logged; 20 in a row end the run.
        config: how long and how fast.
        checkpoint: file for weights, optimiser, average and step; replaced atomically.
        description: label of the progress bar on stderr.

    Returns:
        The averaged module (a copy) if `config.ema_decay` > 0, else the module itself.

    Raises:
        FloatingPointError: 20 steps in a row were not finite.
        ValueError: the checkpoint cannot be read or belongs to another module.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    average = copy.deepcopy(module).requires_grad_(False) if config.ema_decay else None
    step = _resume(checkpoint, module, optimizer, average) if checkpoint.exists() else 0

    module.train()
    saved, bad, recent = time.monotonic(), 0, math.nan
    progress = tqdm(total=config.steps, initial=step, desc=description, mininterval=5.0)
    while step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        # Layers may draw from the global generator (dropout, checkpointing): make that depend on the step too.
        torch.manual_seed(config.seed * 1_000_003 + step)
        loss = loss_at(step_generator(config.seed, step))
        step += 1
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trainable, config.max_grad_norm)
        if torch.isfinite(loss) and torch.isfinite(norm):
            bad = 0
            optimizer.step()
            if average is not None:
                _update_average(average, module, min(config.ema_decay, (1 + step) / (10 + step)))
            recent = loss.item() if math.isnan(recent) else 0.98 * recent + 0.02 * loss.item()
        else:
            bad += 1
            logger.warning("%s: step %d: the loss or its gradient is not finite, step skipped", description, step)
            if bad == 20:
                raise FloatingPointError(f"{description}: 20 steps in a row are not finite; try a lower learning rate")
        optimizer.zero_grad(set_to_none=True)
        progress.update()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{recent:.4f}")
        if step == config.steps or time.monotonic() - saved > config.checkpoint_seconds:
            _save(checkpoint, module, optimizer, average, step)
            saved = time.monotonic()
    progress.close()
    module.eval()
    return module if average is None else average.eval()


@torch.no_grad()
def _update_average(average: nn.Module, module: nn.Module, decay: float) -> None:
    pairs = [(a, p) for a, p in zip(average.parameters(), module.parameters(), strict=True) if p.requires_grad]
    torch._foreach_lerp_([a for a, _ in pairs], [p.detach() for _, p in pairs], 1 - decay)


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None, step: int
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "step": step,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None) -> int:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        return int(state["step"])
    except (RuntimeError, KeyError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a checkpoint of this stage ({error}); move it away to start again") from error
