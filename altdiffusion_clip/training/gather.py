"""Gathers tensors from all processes."""

import torch
from accelerate import Accelerator
from torch import Tensor


def gather_rows(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """Gathers rows from all processes, in order. Each process must give the same number.

    No gradient flows through the rows of other processes, and none is needed: see
    `altdiffusion_clip.training.grad_cache`.

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
