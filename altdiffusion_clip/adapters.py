"""Modules with PEFT adapters: their layers and weights without the adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def adapted_layers(module: nn.Module) -> dict[str, Any]:
    """The layers that PEFT has wrapped in a module, by name. PEFT need not be installed.

    Example:
        >>> adapted_layers(nn.Linear(2, 2))
        {}
    """
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(getattr(layer, "base_layer", None), nn.Module) and hasattr(layer, "active_adapters")
    }


def base_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module as it would be without adapters."""
    layers = [f"{name}." if name else "" for name in adapted_layers(module)]
    tensors = {}
    for name, tensor in module.state_dict().items():
        wrapped = next((layer for layer in layers if name.startswith(layer)), None)
        if wrapped is None:
            tensors[name] = tensor
        elif name.startswith(f"{wrapped}base_layer."):
            tensors[wrapped + name.removeprefix(f"{wrapped}base_layer.")] = tensor
    return tensors


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Turns a module's adapters off for the duration of a block, and back on afterwards."""
    on = [layer for layer in adapted_layers(module).values() if not layer.disable_adapters]
    merged = [(layer, list(layer.merged_adapters)) for layer in on if layer.merged]
    for layer, _ in merged:
        layer.unmerge()
    for layer in on:
        layer._disable_adapters = True  # enable_adapters would also change requires_grad
    try:
        yield
    finally:
        for layer in on:
            layer._disable_adapters = False
        for layer, names in merged:
            layer.merge(adapter_names=names)


@contextmanager
def adapters_set_aside(*modules: nn.Module | None) -> Iterator[list[str]]:
    """Replaces the adapted layers of some modules by the plain ones while they are saved.

    Yields:
        The names of the adapters that were set aside.
    """
    taken: list[tuple[nn.Module, str, nn.Module]] = []
    flags: list[tuple[nn.Module, str, Any]] = []
    names: set[str] = set()
    for module in modules:
        for name, layer in adapted_layers(module).items() if module is not None else ():
            parent, _, last = name.rpartition(".")
            assert module is not None
            holder = module.get_submodule(parent)
            taken.append((holder, last, layer))
            names.update(layer.lora_A if hasattr(layer, "lora_A") else layer.active_adapters)
            setattr(holder, last, layer.base_layer)
        if module is not None and getattr(module, "_hf_peft_config_loaded", False):
            # Otherwise transformers and diffusers would write only the adapters.
            flags.append((module, "_hf_peft_config_loaded", True))
            setattr(module, "_hf_peft_config_loaded", False)  # noqa: B010 - mypy takes it for a tensor
    try:
        yield sorted(names)
    finally:
        for holder, last, layer in taken:
            setattr(holder, last, layer)
        for module, flag, value in flags:
            setattr(module, flag, value)
