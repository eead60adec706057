"""What many processes know, put together, with gradients."""

import torch
from accelerate import Accelerator
from torch import Tensor


def gather_rows(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """The rows of all processes in the order of the processes; each must give as many.

    No gradient flows through what the others gave, nor needs to: see `altdiffusion_clip.training.grad_cache`.

    Args:
        accelerator: of the run.
        rows: any dtype (n, ...).

    Returns:
        (processes * n, ...), detached.
    """
    rows = rows.detach()
    if accelerator.num_processes == 1:
        return rows
    kind = rows.dtype
    if kind == torch.bool:
        rows = rows.to(torch.uint8)
    return accelerator.gather(rows.contiguous()).to(kind)
