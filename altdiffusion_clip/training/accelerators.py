"""Sets up accelerate for a run: one process or many, on CPUs or GPUs, in any precision."""

import logging
import time
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedType, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.precision import warn_if_slow
from altdiffusion_clip.training.config import MODEL, RunConfig
from altdiffusion_clip.training.machines import copy_to_all, crew_of, find_crew

HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MOST_WAITING = timedelta(hours=24)
"""How long one process waits for another."""


def time_is_up(config: RunConfig, accelerator: Accelerator) -> bool:
    """Whether `stop_after_seconds` have passed since the run's accelerator was created, over all phases.

    The main process decides for all, because clocks differ and all processes must save together.
    """
    if not config.stop_after_seconds:
        return False
    return agreed(time.monotonic() - getattr(accelerator, "begun", 0.0) > config.stop_after_seconds, accelerator)


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process of the run has died."""
    said = str(error)
    return isinstance(error, torch.distributed.DistError) or any(word in said for word in ("gloo", "NCCL", "by peer"))


def agreed(answer: bool, accelerator: Accelerator) -> bool:
    """Broadcasts a value from the main process to all."""
    if accelerator.num_processes == 1:
        return answer
    said = torch.tensor(float(answer), device=accelerator.device)
    return bool(broadcast(said, from_process=0).item())


def save_settings(config: RunConfig, accelerator: Accelerator) -> None:
    """Writes the settings of a run beside its checkpoints with `RunConfig.save`, unless it is a dry run.

    Machines with disks of their own get the finished model, if there is one.
    """
    if crew_of(accelerator).is_first and not config.dry_run:
        config.save()
    accelerator.wait_for_everyone()
    if not config.dry_run:
        copy_to_all(config.output / MODEL, accelerator)


def new_accelerator(config: RunConfig) -> Accelerator:
    """Makes the accelerator of a run, as `accelerate launch` or `accelerate config` set it up.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    # accelerate keeps one state per process, which rejects another precision in a second run.
    precision = AcceleratorState._shared_state.get("_mixed_precision", config.mixed_precision)
    if str(precision) != config.mixed_precision:
        AcceleratorState._reset_state()
    # While the main process reads the data, the others wait. A process that dies closes its connections, which ends
    # them.
    waits = InitProcessGroupKwargs(timeout=MOST_WAITING)
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=config.cpu,
            kwargs_handlers=[waits],
            log_with=config.trackers or None,
            project_dir=config.output,
        )
    except ValueError as error:
        raise UserError(f"accelerate cannot be set up: {one_line(error)}") from error
    missing = set(config.trackers) - {str(tracker) for tracker in accelerator.log_with}
    if missing:
        raise UserError(f"trackers: {', '.join(sorted(missing))} is not installed")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise UserError("DeepSpeed is not supported; shard with FSDP: accelerate launch --use_fsdp --fsdp_version 2")
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UserError("FSDP's first version is not supported; accelerate launch --use_fsdp --fsdp_version 2")
    if config.seconds and accelerator.num_processes > 1:
        raise UserError("seconds go by one process's clock; give --steps to a run of several processes")
    if dtype := HALVES.get(config.mixed_precision):
        warn_if_slow(dtype, accelerator.device.type, config.mixed_precision, "--mixed-precision no")
    accelerator.begun = time.monotonic()
    accelerator.crew = find_crew(config.output, accelerator)
    if not accelerator.is_main_process:  # it reports for all
        logging.getLogger("altdiffusion_clip").setLevel(logging.ERROR)
    # Batches have one size, so searching for the fastest convolution pays.
    torch.backends.cudnn.benchmark = True
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise UserError(
            f"batch_size {config.batch_size} cannot be shared out to {accelerator.num_processes} processes in "
            f"{config.gradient_accumulation_steps} parts; make it a multiple of {parts}"
        )
    return accelerator
