"""Caches encoded prompts, so that none is encoded twice, above all the empty negative prompt."""

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

PROMPTS = 64
"""How many prompts a pipeline keeps. Each takes 0.24 MB in float32 with a width of 768."""

_PROBED = 64


class PromptCache:
    """A least-recently-used cache of encoded prompts of one text encoder.

    It is cleared when the encoder is replaced, moved or cast, or when a parameter is replaced or written to. Writes
    that bypass autograd (`parameter.data.mul_(2)`) are noticed if they reach the first or last layers, as those of an
    optimizer or a moving average do. After other such writes, call `clear`.

    Args:
        most: prompts to keep; 0 keeps none.

    Example:
        >>> cache = PromptCache(most=2)
        >>> encoder = nn.Linear(2, 2).eval()
        >>> with torch.no_grad():
        ...     cache.keep(encoder, {"a": torch.ones(1)})
        ...     cache.get(encoder, ["a", "b"])
        {'a': tensor([1.])}
    """

    def __init__(self, most: int = PROMPTS) -> None:
        if most < 0:
            raise ValueError(f"a cache of {most} prompts: give 0 or more")
        self.most = most
        self.clear()

    def clear(self) -> None:
        """Clears the cache."""
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._encoder: weakref.ref[nn.Module] | None = None
        self._state: tuple[Any, ...] = ()
        self._probes: list[Tensor] = []

    def get(self, encoder: nn.Module, keys: list[Hashable]) -> dict[Hashable, Tensor]:
        """The cached encodings of some prompts."""
        if not self._may_be_used(encoder) or not self._is_unchanged(encoder):
            self.clear()
            return {}
        found = {key: self._kept[key] for key in keys if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        return found

    def keep(self, encoder: nn.Module, encoded: dict[Hashable, Tensor]) -> None:
        """Stores new encodings."""
        if not self._may_be_used(encoder) or not encoded:
            return
        if self._encoder is None:
            self._encoder, self._state = weakref.ref(encoder), _state_of(encoder)
            self._probes = [probe.clone() for probe in _probes_of(encoder)]
        self._kept.update(encoded)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def _may_be_used(self, encoder: nn.Module) -> bool:
        """Whether caching is possible: not during training, nor with adapters, whose scales are not parameters."""
        return bool(self.most) and not (torch.is_grad_enabled() or encoder.training or hasattr(encoder, "peft_config"))

    def _is_unchanged(self, encoder: nn.Module) -> bool:
        if self._encoder is None or self._encoder() is not encoder or self._state != _state_of(encoder):
            return False
        return all(torch.equal(a, b) for a, b in zip(self._probes, _probes_of(encoder), strict=True))


def _state_of(encoder: nn.Module) -> tuple[Any, ...]:
    """A key that changes with the weights. For offloaded weights it ignores the device, which changes all the time."""
    offloaded = any(hasattr(module, "_hf_hook") for module in encoder.modules())
    return tuple(
        (
            id(tensor),
            None if offloaded else tensor.data_ptr(),
            0 if tensor.is_inference() else tensor._version,
            tensor.dtype,
        )
        for tensor in _weights_of(encoder)
    )


def _weights_of(encoder: nn.Module) -> list[Tensor]:
    """The parameters; for layers that are offloaded one by one, their stored copies."""
    kept = []
    for module in encoder.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,)):
            weights = getattr(each, "weights_map", None)
            if weights is not None:
                names = [name for name, _ in module.named_parameters(recurse=getattr(each, "place_submodules", False))]
                kept += [weights[name] for name in names]
    return kept or list(encoder.parameters())


def _probes_of(encoder: nn.Module) -> list[Tensor]:
    """A few numbers from the first and the last readable matrix."""
    matrices = [p for p in _weights_of(encoder) if p.ndim > 1 and not p.is_meta and p.is_floating_point()]
    return [matrix.detach().flatten()[:_PROBED].cpu() for matrix in (*matrices[:1], *matrices[-2:])]
