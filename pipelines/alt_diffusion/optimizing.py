"""Drawing faster, with pictures that no one can tell from the slow ones, in one call that can be undone."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from altdiffusion_clip.adapters import base_tensors

HALVES = {"cpu": torch.bfloat16, "cuda": torch.float16, "mps": torch.float16, "xpu": torch.float16}
"""The half precision of each kind of device."""

FASTER = 1.2
"""A half must be so many times as fast to be taken, since it rounds."""

_PROBE_SIDE = 32
_VAE_PARTS = ("encoder", "quant_conv", "post_quant_conv", "decoder")


@dataclass
class Optimizations:
    """What was done to a pipeline.

    Attributes:
        changes: a line each.
    """

    changes: list[str] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    def add(self, line: str, *undo: Callable[[], object]) -> None:
        """Notes a change, and how to take it back."""
        self.changes.append(line)
        self._undo.extend(undo)

    def undo(self) -> None:
        """Takes all back, the last change first; pictures are then to the bit what they were.

        Weights that were changed meanwhile, by a LoRA that was fused or a checkpoint that was loaded, stay changed.
        """
        while self._undo:
            self._undo.pop()()
        self.changes.clear()

    def __str__(self) -> str:
        return "\n".join(self.changes) or "nothing: all of it is as fast as it gets here"


class AltDiffusionOptimizeMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`optimize` for every AltDiffusion pipeline; put it before the diffusers class."""

    _optimizations: Optimizations | None = None

    @torch.no_grad()
    def optimize(self, half: bool | None = None, compile: bool | None = None) -> Optimizations:
        """Makes the pipeline draw faster: call it after `to(device)`, and before the first picture.

        The UNet, the autoencoder and a ControlNet compute in half precision if that is faster here, which is measured;
        latents, the scheduler and the text encoder stay as they are, and so do scores. The autoencoder's weights lie
        channels last. On a GPU the UNet's do too, and the UNet and the decoder are compiled, which takes minutes at the
        first picture of each size. (Compiled, the UNet of Stable Diffusion 1 was no faster on the CPUs that were tried.
        The projections of attention are not fused: LoRAs and IP-Adapters that are loaded later would do nothing.)

        Args:
            half: of the UNet and the autoencoder; measured if not given. Float32 weights are kept on the CPU, to be put
                back.
            compile: the UNet and the decoder; on GPUs alone if not given.

        Returns:
            What was done, a line each; print it, or `undo` it.

        Raises:
            ValueError: the pipeline has been optimized already.

        Example:
            >>> from altdiffusion_clip import AltDiffusionPipeline
            >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
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
        # On CPUs the UNet's convolutions, with few pixels and many channels, are slower that way.
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
    """Casts a module, which goes on to take and give float32; returns how to put its own weights back."""
    # By their names without adapters, which may come and go until then.
    kept = {name: tensor.data.to("cpu") for name, tensor in base_tensors(module).items()}
    nn.Module.to(module, dtype)  # diffusers' own warns of what is to stay in float32, even if that is nothing
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
    """A forward pre-hook: pictures and states in the dtype that the module has now.

    Timesteps have no more than one dimension, and stay exact.
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
        # diffusers' outputs are mappings too, whose classes take their fields by name.
        return type(value)(**{key: _cast(item, dtype, least_dimensions) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype, least_dimensions) for item in value)
    return value


def _seconds(unet: Any, device: torch.device, rounds: int = 2) -> float:
    """The time of one pass on the device that the pipeline computes on, the best of some after one to warm up."""
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
