"""Converts pixels for networks. They are moved as bytes, a quarter of the size, and converted on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def signed(pixels: Tensor) -> Tensor:
    """Pixels for an autoencoder: float in [-1, 1], with the shape of `pixels`.

    Args:
        pixels: uint8, any shape.

    Example:
        >>> signed(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    return pixels.float().div_(127.5).sub_(1)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels for a vision tower: float (pictures, 3, height, width).

    Args:
        pixels: uint8 (pictures, 3, height, width).
        mean: of each channel, in [0, 1].
        std: likewise.
    """
    m, s = (torch.tensor(value, device=pixels.device).view(1, 3, 1, 1) for value in (mean, std))
    return (pixels.float().div_(255) - m) / s
