"""Pixels as networks take them. They travel as bytes, a quarter of the size, and become numbers on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def signed(pixels: Tensor) -> Tensor:
    """Pixels as an autoencoder takes them: float, like `pixels` in shape, in [-1, 1].

    Args:
        pixels: uint8, any shape.

    Example:
        >>> signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    return pixels.float().div_(127.5).sub_(1)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels as a vision tower takes them: float (pictures, 3, height, width).

    Args:
        pixels: uint8 (pictures, 3, height, width).
        mean: of each channel, in [0, 1].
        std: likewise.
    """
    m, s = (torch.tensor(value, device=pixels.device).view(1, 3, 1, 1) for value in (mean, std))
    return (pixels.float().div_(255) - m) / s
