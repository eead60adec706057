"""Estimates what a run will take before it starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from torch import nn

from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.metrics import read_metrics


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        steps: optimiser steps.
        examples: in the data.
        epochs: passes over the data.
        tokens: in the data; 0 without texts.
        tokens_in_run: tokens that the run reads, without padding.
        trained_parameters: number of trained parameters.
        frozen_parameters: number of frozen parameters.
        memory_gb: for weights, gradients, optimiser and average, per process and without sharding. Activations, which
            grow with the part of the batch that is computed at a time, come on top.
        cache_gb: on disk, for precomputed data.
        checkpoint_gb: on disk.
        hours: for the steps that remain, if the run was begun before and noted its speed. No other machine would do.
    """

    steps: int
    examples: int
    epochs: float
    tokens: int
    tokens_in_run: int
    trained_parameters: int
    frozen_parameters: int
    memory_gb: float
    cache_gb: float
    checkpoint_gb: float
    hours: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All figures by name."""
        return asdict(self)


def estimate(
    config: RunConfig,
    module: nn.Module,
    *,
    tokens: Sequence[int] | np.ndarray,
    cache_bytes: int = 0,
    examples: int = 0,
    beside: Sequence[nn.Module] = (),
) -> Estimate:
    """Estimates a run.

    Args:
        config: of the run.
        module: to train, with frozen parameters marked.
        tokens: of each text in the data.
        cache_bytes: of precomputed data on disk.
        examples: in the data; by default as many as texts.
        beside: other modules in memory that are not trained.

    Example:
        >>> config = RunConfig(steps=10, batch_size=4)
        >>> estimate(config, nn.Linear(1000, 1000, bias=False), tokens=[5] * 20).epochs
        2.0
    """
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    saved_frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    frozen = saved_frozen + sum(p.numel() for part in beside for p in part.parameters())
    examples = examples or len(tokens)
    seen = config.steps * config.batch_size
    # Float32 weights and gradients, and Adam's two moments.
    states = 4 * (4 * trained + frozen + (trained if config.ema_decay else 0))
    total = int(np.sum(tokens))
    return Estimate(
        steps=config.steps,
        examples=examples,
        epochs=round(seen / max(1, examples), 2),
        tokens=total,
        tokens_in_run=int(seen * total / max(1, len(tokens))),
        trained_parameters=trained,
        frozen_parameters=frozen,
        memory_gb=round(states / 1e9, 3),
        cache_gb=round(cache_bytes / 1e9, 3),
        checkpoint_gb=round(4 * (3 * trained + saved_frozen + (trained if config.ema_decay else 0)) / 1e9, 3),
        hours=_hours(config),
    )


def _hours(config: RunConfig) -> float | None:
    """The hours that remain at the speed so far."""
    phases = [config.output, *config.output.glob("*")]
    runs = [read_metrics(phase) for phase in phases]
    speeds = [line["examples_per_second"] for lines in runs for line in lines if line.get("examples_per_second")]
    if not speeds:
        return None
    done = sum(max((line["step"] for line in lines), default=0) for lines in runs)
    left = max(0, config.steps - done)
    return round(left * config.batch_size / median(speeds) / 3600, 2)
