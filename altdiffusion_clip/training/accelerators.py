"""accelerate, set up for a run: one process or many, on CPUs or GPUs, in any precision."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig


def new_accelerator(config: RunConfig) -> Accelerator:
    """The accelerator of a run, as `accelerate launch` or `accelerate config` set it up.

    Raises:
        UserError: the batch cannot be shared out evenly.
    """
    # accelerate keeps one state per process and refuses another precision in a second run.
    precision = AcceleratorState._shared_state.get("_mixed_precision", config.mixed_precision)
    if str(precision) != config.mixed_precision:
        AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.cpu)
    if config.seconds and accelerator.num_processes > 1:
        raise UserError("seconds go by one process's clock; give --steps to a run of several processes")
    # Batches have one size, so the search for the fastest convolution pays.
    torch.backends.cudnn.benchmark = True
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise UserError(
            f"batch_size {config.batch_size} cannot be shared out to {accelerator.num_processes} processes in "
            f"{config.gradient_accumulation_steps} parts; make it a multiple of {parts}"
        )
    return accelerator
