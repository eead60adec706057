"""Draws faster with indistinguishable pictures, in one call that can be undone."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from altdiffusion_clip.adapters import base_tensors
from altdiffusion_clip.precision import is_slow

HALVES = {"cpu": torch.bfloat16, "cuda": torch.float16, "mps": torch.float16, "xpu": torch.float16}
"""The half-precision dtype of each kind of device."""

FASTER = 1.2
"""Half precision must be faster by this factor to be used, because it rounds."""

_PROBE_SIDE = 32
_VAE_PARTS = ("encoder", "quant_conv", "post_quant_conv", "decoder")


@dataclass
class Optimizations:
    """What `optimize` did to a pipeline.

    Attributes:
        changes: one line each.
    """

    changes: list[str] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def add(self, line: str, *undo: Callable[[], object]) -> None:
        """Records a change and how to undo it."""
        self.changes.append(line)
        self._undo.extend(undo)

    def undo(self) -> None:
        """Undoes all changes, the last one first. Pictures are then bit for bit what they were.

        Weights that were changed in the meantime, by fusing a LoRA or loading a checkpoint, stay changed.
        """
        while self._undo:
            self._undo.pop()()
        self.changes.clear()

    def __str__(self) -> str:
        return "\n".join(self.changes) or "nothing: all of it is as fast as it gets here"


class AltDiffusionOptimizeMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`optimize` for every AltDiffusion pipeline. It must come before the diffusers class."""

    _optimizations: Optimizations | None = None

    @torch.no_grad()
    def optimize(self, half: bool | None = None, compile: bool | None = None) -> Optimizations:
        """Makes the pipeline draw faster. Call it after `to(device)` and before the first picture.

        The UNet, the autoencoder and a ControlNet compute in half precision if a measurement shows that it is faster.
        Latents, scheduler, text encoder and scores do not change. The autoencoder's weights become channels last. On a
        GPU, so do the UNet's, and the UNet and the decoder are compiled, which takes minutes for the first picture of
        each size. (On the CPUs that were tried, compiling the UNet of Stable Diffusion 1 did not help. Attention
        projections are not fused, because LoRAs and IP-Adapters that are loaded later would then have no effect.)

        Args:
            half: use half precision; measured by default. Float32 weights are kept on the CPU for `undo`.
            compile: compile the UNet and the decoder; by default only on GPUs.

        Returns:
            What was done, one line each. It can be printed and undone.

        Raises:
            ValueError: the pipeline has been optimized already.

        Example:
            >>> from altdiffusion_clip import AltDiffusionPipeline
            >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
            >>> done = pipe.optimize(half=True)
            >>> print(done.changes[0])
            unet, vae: bfloat16
            >>> done.undo()
        """
        if self._optimizations is not None and self._optimizations.changes:
            raise ValueError("this pipeline has been optimized; undo that first")
        device = torch.device(self._execution_device)
        done = self._optimizations = Optimizations()
        modules: dict[str, Any] = {
            name: module
            for name in ("unet", "controlnet", "vae")
            if isinstance(module := getattr(self, name, None), nn.Module)
        }
        dtype = HALVES.get(device.type)
        if half is None and dtype is not None and is_slow(dtype, device.type):
            half = False  # to measure the UNet would take minutes
        if half is not False and dtype is not None and self.unet.dtype == torch.float32:
            whole = _seconds(self.unet, device) if half is None else 0.0
            undo = [_in_half(module, dtype) for module in modules.values()]
            gain = whole / _seconds(self.unet, device) if half is None else 0.0
            self.maybe_free_model_hooks()
            if half or gain >= FASTER:
                measured = "" if half else f" ({gain:.1f} times as fast as float32, measured)"
                done.add(f"{', '.join(modules)}: {str(dtype).removeprefix('torch.')}{measured}", *undo)
            else:
                for take_back in undo:
                    take_back()
        # On CPUs, the UNet's convolutions, with few pixels and many channels, are slower that way.
        last = modules if device.type == "cuda" else {"vae": self.vae}
        for module in last.values():
            module.to(memory_format=torch.channels_last)
        done.add(f"{', '.join(last)}: channels last", *(_contiguous(module) for module in last.values()))
        if compile or (compile is None and device.type == "cuda"):
            self._compile(done, device)
        return done

    def _compile(self, done: Optimizations, device: torch.device) -> None:
        if device.type == "cpu" and not (shutil.which("c++") or shutil.which("g++")):
            done.changes.append("not compiled: there is no C++ compiler here")
            return
        for module in (self.unet, self.vae.decoder):
            module.compile()
        done.add("unet, decoder of the vae: compiled", *(_uncompiled(m) for m in (self.unet, self.vae.decoder)))


def _in_half(module: nn.Module, dtype: torch.dtype) -> Callable[[], None]:
    """Casts a module that still takes and returns float32. Returns a function that restores its weights."""
    # By names without adapters, because adapters may come and go until then.
    kept = {name: tensor.data.to("cpu") for name, tensor in base_tensors(module).items()}
    nn.Module.to(module, dtype)  # diffusers' own method warns about modules that stay in float32, even if none do
    parts = [getattr(module, name, None) for name in _VAE_PARTS]
    boundaries = [part for part in parts if isinstance(part, nn.Module)] or [module]
    hooks = []
    for part in boundaries:
        hooks.append(part.register_forward_pre_hook(_cast_in, with_kwargs=True))
        hooks.append(part.register_forward_hook(_cast_out))

    @torch.no_grad()
    def undo() -> None:
        for hook in hooks:
            hook.remove()
        rounded = {name: tensor.detach().to("cpu") for name, tensor in base_tensors(module).items()}
        nn.Module.to(module, torch.float32)
        for name, tensor in base_tensors(module).items():
            before = kept.get(name)
            if before is not None and torch.equal(before.to(rounded[name].dtype), rounded[name]):
                tensor.copy_(before)

    return undo


def _cast_in(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """A forward pre-hook that casts pictures and states to the module's current dtype.

    Timesteps have at most one dimension, and stay exact.
    """
    dtype = next(module.parameters()).dtype
    return _cast(args, dtype, 2), _cast(kwargs, dtype, 2)


def _cast_out(module: nn.Module, args: Any, output: Any) -> Any:
    del module, args
    return _cast(output, torch.float32, 0)


def _cast(value: Any, dtype: torch.dtype, least_dimensions: int) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.ndim >= least_dimensions else value
    if isinstance(value, Mapping):
        # diffusers' outputs are mappings too, and their classes take the fields by name.
        return type(value)(**{key: _cast(item, dtype, least_dimensions) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype, least_dimensions) for item in value)
    return value


def _seconds(unet: Any, device: torch.device, rounds: int = 2) -> float:
    """The time of one pass on the pipeline's device: the best of several after a warm-up."""
    config = unet.config
    side = min(config.sample_size, _PROBE_SIDE)
    sample = torch.randn(2, config.in_channels, side, side, device=device)
    states = torch.randn(2, 77, config.cross_attention_dim, device=device)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        unet(sample, torch.tensor(1, device=device), states)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _contiguous(module: Any) -> Callable[[], object]:
    return lambda: module.to(memory_format=torch.contiguous_format)


def _uncompiled(module: nn.Module) -> Callable[[], object]:
    def undo() -> None:
        module._compiled_call_impl = None

    return undo
