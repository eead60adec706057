"""How fast a device computes in half precision."""

import functools
import logging
import time

import torch
from torch.nn import functional as F

logger = logging.getLogger(__name__)

SLOW = 2.0
"""A dtype is slow if it takes this many times as long as float32."""

_SHAPE = (4, 128, 16, 16)
_ROUNDS = 3


@functools.cache
def slowdown(dtype: torch.dtype, device_type: str = "cpu") -> float:
    """Measures how many times as long a convolution takes as in float32: above 1 it is slower, below 1 faster.

    Processors without AVX-512, AMX or Arm's bfloat16 instructions convolve in half precision up to 50 times as slowly,
    and one that draws in it seems to hang. GPUs, which are all made for half precision, are not measured: 1.0.

    Example:
        >>> import torch
        >>> slowdown(torch.float32)
        1.0
        >>> slowdown(torch.bfloat16, "cuda")
        1.0
    """
    if device_type != "cpu" or dtype == torch.float32:
        return 1.0
    return _seconds(dtype) / _seconds(torch.float32)


def is_slow(dtype: torch.dtype, device_type: str) -> bool:
    """Whether a device computes much more slowly in a dtype than in float32.

    Example:
        >>> is_slow(torch.float32, "cpu"), is_slow(torch.float16, "cuda")
        (False, False)
    """
    return slowdown(dtype, device_type) >= SLOW


def warn_if_slow(dtype: torch.dtype, device_type: str, name: str, instead: str = "float32") -> None:
    """Says in one line how much faster float32 would be, if a dtype is slow.

    Args:
        dtype: to compute in.
        device_type: such as "cpu".
        name: of the dtype, as the user wrote it.
        instead: what the user writes for float32.
    """
    if is_slow(dtype, device_type):
        times = slowdown(dtype, device_type)
        logger.warning(
            "this processor has no fast arithmetic in %s; %s is %.0f times as fast here", name, instead, times
        )


def _seconds(dtype: torch.dtype) -> float:
    channels = _SHAPE[1]
    pixels, weight = torch.zeros(_SHAPE, dtype=dtype), torch.zeros(channels, channels, 3, 3, dtype=dtype)
    seconds = []
    for _ in range(_ROUNDS):  # the first is the warm-up
        start = time.perf_counter()
        F.conv2d(pixels, weight, padding=1)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
