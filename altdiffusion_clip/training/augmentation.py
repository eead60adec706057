"""Augments pictures: random crops at random sizes, and mirroring."""

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_AREA = 0.6


def augmented(pixels: Tensor, seed: int, mirror: bool = False) -> Tensor:
    """A random crop of at least `SMALLEST_AREA` of a picture, scaled to the size of the whole.

    Args:
        pixels: float (channels, side, side).
        seed: for this picture and step.
        mirror: also mirror half of the time; not if captions mention left and right.

    Example:
        >>> augmented(torch.rand(3, 32, 32), seed=0).shape
        torch.Size([3, 32, 32])
    """
    generator = torch.Generator().manual_seed(seed)
    side = pixels.shape[-1]
    area, y, x, flip = torch.rand(4, generator=generator).tolist()
    crop = max(1, round(side * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area) ** 0.5))
    top, left = (int(place * (side - crop + 1)) for place in (y, x))
    part = pixels[None, :, top : top + crop, left : left + crop]
    whole = F.interpolate(part, size=(side, side), mode="bicubic", align_corners=False, antialias=True)[0]
    return whole.flip(-1) if mirror and flip < 0.5 else whole
