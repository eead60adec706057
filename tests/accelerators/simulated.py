"""A device that is not the CPU, for machines that have no other: "sim" computes on the CPU, but apart from it.

As on a GPU, an operation that gets tensors of both devices fails, unless the CPU's has no dimensions or the operation
copies between them; so what runs on it has left nothing behind. PyTorch makes it known by its Python backend for
PrivateUse1 (`torch.utils.backend_registration`, experimental). It cannot be taken back: for processes of their own.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_any, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "sim"
COPIES = frozenset({"_to_copy", "copy_", "_local_scalar_dense", "lift_fresh", "_has_compatible_shallow_copy_type"})
"""Operations that may get tensors of both."""


class Simulated(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> "Simulated":
        values = values.held if isinstance(values, Simulated) else values
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad or values.requires_grad,
        )
        made.held = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, *args, **(kwargs or {}))

    def untyped_storage(self) -> torch.UntypedStorage:
        """What tells apart which tensors share memory, when they are saved."""
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = Simulated(self.held.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:
        return f"Simulated({self.held!r})"


class _Backend(_DummyBackendModule):
    """What torch asks a device for, beside computing; its random numbers are the CPU's."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


def compute(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Computes on the CPU, and gives what comes out back to the device."""
    name = func._schema.name.partition("::")[2]
    given = (args, kwargs)
    if name not in COPIES and tree_any(_is_simulated, given) and tree_any(_is_of_cpu, given):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {NAME}:0 and cpu")
    to_cpu = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.Python)):
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
    if to_cpu or name == "_local_scalar_dense":
        return result
    written = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    return tree_map(lambda value: _of_device(value, written), result)


def _is_simulated(value: Any) -> bool:
    return isinstance(value, Simulated)


def _is_of_cpu(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, Simulated) and value.dim() > 0


def _values(value: Any) -> Any:
    if isinstance(value, Simulated):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _of_device(value: Any, arguments: list[Tensor]) -> Any:
    if not isinstance(value, Tensor) or isinstance(value, Simulated):
        return value
    # What an operation writes into is returned as the same tensor.
    same = next((given for given in arguments if _values(given) is value), None)
    return Simulated(value) if same is None else same


def use() -> None:
    """Makes the device known to torch; before other imports."""
    global _library
    _setup_privateuseone_for_python_backend(NAME, _Backend())
    _library = torch.library.Library("_", "IMPL", "PrivateUse1")
    _library.fallback(compute, "PrivateUse1")
    # Tensors of inference mode pass by layers of the dispatcher that a wrapper is seen through.
    torch.inference_mode = _no_inference_mode  # type: ignore[misc,assignment]
    # `parameter.data = other`, as Module.to does it otherwise, would not reach what is held.
    torch.__future__.set_swap_module_params_on_conversion(True)
    _device_constructors()  # keeps the true torch.tensor, which `with torch.device(...)` looks for
    torch.tensor = _tensor


_library: torch.library.Library | None = None
_true_tensor = torch.tensor


@functools.wraps(torch.tensor)
def _tensor(data: Any, *args: Any, **kwargs: Any) -> Tensor:
    """torch.tensor; the true one reads its numbers, and sends them to the device, where no dispatcher sees it."""
    data = tree_map(lambda value: value.item() if isinstance(value, Simulated) else value, data)
    device = kwargs.pop("device", None)
    if device is None or torch.device(device).type != NAME:
        return _true_tensor(data, *args, device=device, **kwargs)
    return _true_tensor(data, *args, **kwargs).to(device)


def _no_inference_mode(mode: Any = True) -> Any:
    """In the place of torch.inference_mode, as a decorator without arguments too."""
    return torch.no_grad()(mode) if callable(mode) else (torch.no_grad if mode else torch.enable_grad)()
