"""Bounds CLIP's temperature (arXiv 2103.00020, section 2.5): logits are scaled by at most 100."""

import math

import torch
from torch import nn

MAX_LOGIT_SCALE = math.log(100.0)


@torch.no_grad()
def clamp_temperature(module: nn.Module) -> None:
    """Clamps every `logit_scale` of a module to between 0 and ln 100, after a step.

    If the loss clamped it instead, a scale at the bound would have no gradient and never move again.

    Example:
        >>> module = nn.Module()
        >>> module.logit_scale = nn.Parameter(torch.tensor(9.0))
        >>> clamp_temperature(module)
        >>> round(module.logit_scale.item(), 4)
        4.6052
    """
    for name, parameter in module.named_parameters():
        if name.split(".")[-1] == "logit_scale":
            parameter.clamp_(0.0, MAX_LOGIT_SCALE)
