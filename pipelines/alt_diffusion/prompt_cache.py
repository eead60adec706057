"""Encoded prompts that are kept, so that none is read twice, the empty negative prompt above all."""

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

PROMPTS = 64
"""How many a pipeline keeps: 0.24 MB each at 768 numbers a token, in float32."""

_PROBED = 64


class PromptCache:
    """The last encoded prompts of one text encoder, least recently used first out.

    They are forgotten when the encoder changes: when another is put in its place, when it is moved or cast, when a
    parameter is replaced or written to. Writes that go around autograd (`parameter.data.mul_(2)`) are seen if they
    reach the layers at its ends, as those of an optimizer or an average do; after others call `clear`.

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
        """Forgets all."""
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._encoder: weakref.ref[nn.Module] | None = None
        self._state: tuple[Any, ...] = ()
        self._probes: list[Tensor] = []

    def get(self, encoder: nn.Module, keys: list[Hashable]) -> dict[Hashable, Tensor]:
        """Those of some prompts that are there."""
        if not self._may_be_used(encoder) or not self._is_unchanged(encoder):
            self.clear()
            return {}
        found = {key: self._kept[key] for key in keys if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        return found

    def keep(self, encoder: nn.Module, encoded: dict[Hashable, Tensor]) -> None:
        """Keeps what was just encoded."""
        if not self._may_be_used(encoder) or not encoded:
            return
        if self._encoder is None:
            self._encoder, self._state = weakref.ref(encoder), _state_of(encoder)
            self._probes = [probe.clone() for probe in _probes_of(encoder)]
        self._kept.update(encoded)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def _may_be_used(self, encoder: nn.Module) -> bool:
        """Not while the encoder learns, nor with adapters, whose scales are no parameters."""
        return bool(self.most) and not (torch.is_grad_enabled() or encoder.training or hasattr(encoder, "peft_config"))

    def _is_unchanged(self, encoder: nn.Module) -> bool:
        if self._encoder is None or self._encoder() is not encoder or self._state != _state_of(encoder):
            return False
        return all(torch.equal(a, b) for a, b in zip(self._probes, _probes_of(encoder), strict=True))


def _state_of(encoder: nn.Module) -> tuple[Any, ...]:
    """What changes when weights do. Of weights that are offloaded it is not where they are, which changes always."""
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
    """The parameters; of layers that are offloaded one by one, where they are kept meanwhile."""
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
    """A few numbers of the first and of the last matrix whose values can be read."""
    matrices = [p for p in _weights_of(encoder) if p.ndim > 1 and not p.is_meta and p.is_floating_point()]
    return [matrix.detach().flatten()[:_PROBED].cpu() for matrix in (*matrices[:1], *matrices[-2:])]
