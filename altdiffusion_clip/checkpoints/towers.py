"""Compares text towers, whatever dtypes their weights have been through."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from altdiffusion_clip.adapters import base_tensors
from altdiffusion_clip.checkpoints.architectures import is_unused

_OPTIONAL = ("pre_LN.", "transformation_pre.")
"""Prefixes of tensors that some published towers lack. They are compared if both have them."""

_HALVES = (torch.float16, torch.bfloat16)
_ULP = 2.0**-7  # relative, for bfloat16


class TowerTensors(Protocol):
    """Tensors by name, read a few rows at a time: `CheckpointTensors` or `ModuleTensors`."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: object) -> bool: ...

    def shape(self, name: str) -> torch.Size:
        """Of a tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor."""

    def rows(self, name: str, most: int) -> Iterator[Tensor]:
        """Reads a tensor in blocks of limited size, in bytes."""


class ModuleTensors:
    """The tensors of a module, without adapters.

    Args:
        module: on any device.
    """

    def __init__(self, module: nn.Module) -> None:
        self._tensors = base_tensors(module)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> torch.Size:
        """Of a tensor."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor."""
        return self._tensors[name].dtype

    def rows(self, name: str, most: int) -> Iterator[Tensor]:
        """Reads a tensor in blocks of limited size, in bytes, on the CPU."""
        tensor = self._tensors[name]
        for part in tensor.split(max(1, most * len(tensor) // max(1, tensor.nbytes))):
            yield part.cpu()


def first_difference(one: TowerTensors, other: TowerTensors) -> str | None:
    """Finds the first tensor in which two text towers differ, or None.

    Args:
        one: from a file or a module.
        other: likewise.
    """
    for name in [*one, *(name for name in other if name not in one)]:
        if is_unused(name) or name == "logit_scale":
            continue
        if name not in one or name not in other:
            if name.startswith(_OPTIONAL):
                continue
            return name
        if one.shape(name) != other.shape(name):
            return name
        # Blocks have the same number of rows on both sides, whatever the dtypes.
        most = [2**24 * tower.dtype(name).itemsize for tower in (one, other)]
        for ours, theirs in zip(one.rows(name, most[0]), other.rows(name, most[1]), strict=True):
            if not same_weights(ours, theirs):
                return name
    return None


def same_weights(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors are the same weights, allowing for the rounding of dtypes they have been through.

    Half-precision files that were loaded in float32 still have rounded numbers. So if either tensor consists of
    numbers of a half type, both are compared in that type. If one has been float16 and the other bfloat16, they may
    differ by one rounding.

    Args:
        ours: of any floating dtype.
        theirs: of the same shape.

    Example:
        >>> weights = torch.linspace(-0.1, 0.1, 1000)
        >>> same_weights(weights.half().float(), weights), same_weights(weights + 1e-4, weights)
        (True, False)
    """
    if ours.dtype == theirs.dtype and torch.equal(ours, theirs):
        return True
    pair = [ours.float(), theirs.float()]
    if torch.equal(*pair):
        return True
    been_in = [[half for half in _HALVES if torch.equal(_through([half], t), t)] for t in pair]
    for halves in ([half] for half in _HALVES):
        if any(halves[0] in seen for seen in been_in) and torch.equal(*(_through(halves, t) for t in pair)):
            return True
    if torch.bfloat16 in been_in[0] + been_in[1]:
        # From float16 to bfloat16, so rounded twice.
        once = [_through([torch.float16, torch.bfloat16], t) for t in pair]
        if torch.equal(*once):
            return True
        if all(been_in):
            return bool(((once[0] - once[1]).abs() <= _ULP * once[0].abs() + 2.0**-24).all())
    return False


def _through(halves: Sequence[torch.dtype], tensor: Tensor) -> Tensor:
    for half in halves:
        tensor = tensor.to(half).float()
    return tensor
