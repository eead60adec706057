"""Loads LoRAs: for XLM-RoBERTa, whose layers diffusers does not know, and those made for Stable Diffusion."""

import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusers import StableDiffusionPipeline
from diffusers.utils import get_adapter_name, scale_lora_layers
from torch import Tensor

from altdiffusion_clip.adapters import adapted_layers

logger = logging.getLogger(__name__)
Weights = dict[str, Tensor]
_LAYER = re.compile(r"\.(lora_[A-Za-z]|lora_linear_layer|lora|alpha|dora_scale|to_[qkv]_lora|to_out_lora)(\.|$)")
_QUOTED = 3


class AltDiffusionLoraMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`load_lora_weights` for every AltDiffusion pipeline. It must come before the diffusers class.

    Add a LoRA to the text encoder with
    `pipe.text_encoder.add_adapter(LoraConfig(target_modules=["query", "key", "value"]))`, and save it with diffusers'
    `save_lora_weights(folder, text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder))`.
    """

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Weights, **kwargs: Any
    ) -> Any:
        """Reads a LoRA as in diffusers, including UNet LoRAs from old versions of diffusers."""
        read = super().lora_state_dict(pretrained_model_name_or_path_or_dict, **kwargs)
        state_dict, *rest = read
        known = (f"{cls.unet_name}.", f"{cls.text_encoder_name}.")
        if state_dict and not any(name.startswith(known) for name in state_dict):
            state_dict = {f"{cls.unet_name}.{name}": tensor for name, tensor in state_dict.items()}
        return (state_dict, *rest)

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Weights,
        adapter_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Loads a LoRA, like `StableDiffusionPipeline.load_lora_weights`.

        Of a LoRA for Stable Diffusion, only the UNet's part is loaded. The part for CLIP's text encoder fits none of
        our layers, and a warning says what was left out. If a LoRA cannot be loaded, the pipeline does not change.

        Args:
            pretrained_model_name_or_path_or_dict: a file, a folder, a hub id, or tensors by name.
            adapter_name: for `set_adapters`; the same for the UNet and the text encoder.
            **kwargs: as in diffusers (`weight_name`, `hotswap`, ...).

        Raises:
            ValueError: nothing in it fits, or the name is taken.
        """
        hub = {key: value for key, value in kwargs.items() if key not in ("hotswap", "low_cpu_mem_usage")}
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, dict):
            source = dict(source)  # diffusers removes what it has converted
        state_dict, alphas, metadata = self.lora_state_dict(source, **{**hub, "return_lora_metadata": True})
        fitting, left_out = self._fitting(state_dict)
        if not fitting:
            raise ValueError(
                f"nothing in this LoRA fits this pipeline: its layers are of another model ({_some(left_out)})"
            )
        if left_out:
            logger.warning(
                "%d of the LoRA's %d tensors are left out, since this pipeline has no such layers: %s",
                len(left_out),
                len(state_dict),
                _some(left_out),
            )
        parts = {"unet": self.unet, "text_encoder": self.text_encoder}
        before = {name: set(getattr(part, "peft_config", None) or ()) for name, part in parts.items()}
        if adapter_name is None:
            taken = before["unet"] | before["text_encoder"]
            adapter_name = next(name for i in range(len(taken) + 1) if (name := f"default_{i}") not in taken)
        same = {key: kwargs[key] for key in ("hotswap", "low_cpu_mem_usage") if key in kwargs}
        try:
            for name, load in (
                ("unet", self.load_lora_into_unet),
                ("text_encoder", self.load_lora_into_text_encoder),
            ):
                mine = {key: tensor for key, tensor in fitting.items() if key.startswith(f"{name}.")}
                if mine:
                    more = {"lora_scale": self.lora_scale} if name == "text_encoder" else {}
                    load(
                        mine,
                        network_alphas=_of_layers(alphas, mine),
                        **{name: parts[name]},
                        adapter_name=adapter_name,
                        metadata=metadata,
                        _pipeline=self,
                        **same,
                        **more,
                    )
        except Exception:
            for name, part in parts.items():
                if adapter_name not in before[name]:
                    _take_off(part, adapter_name)
            raise

    def _fitting(self, state_dict: Weights) -> tuple[Weights, list[str]]:
        """The tensors that fit layers of this pipeline, and the names of the others."""
        layers = {
            name: {_plain(layer) for layer, _ in part.named_modules()}
            for name, part in (("unet", self.unet), ("text_encoder", self.text_encoder))
        }
        fitting, left_out = {}, []
        for key, tensor in state_dict.items():
            part, _, rest = key.partition(".")
            layer = _LAYER.split(rest, maxsplit=1)[0].removesuffix(".processor")
            if part in layers and (part == "unet" or _plain(layer) in layers[part]):
                fitting[key] = tensor
            else:
                left_out.append(key)
        return fitting, left_out

    @classmethod
    def load_lora_into_text_encoder(
        cls,
        state_dict: Mapping[str, Tensor],
        network_alphas: Mapping[str, float] | None,
        text_encoder: Any,
        prefix: str | None = None,
        lora_scale: float = 1.0,
        adapter_name: str | None = None,
        _pipeline: Any = None,
        low_cpu_mem_usage: bool = False,
        hotswap: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads a LoRA into the text encoder. diffusers' own loader only knows CLIP's layers.

        Load it before `enable_model_cpu_offload` and similar calls.

        Args:
            state_dict: the LoRA's tensors, named as PEFT names them.
            network_alphas: by layer; the default alpha of a layer is its rank.
            text_encoder: a `RobertaSeriesModelWithTransformation`.
            prefix: of the names of the text encoder's tensors; by default "text_encoder".
            lora_scale: its weight.
            adapter_name: for `set_adapters`.
            _pipeline: from diffusers.
            low_cpu_mem_usage: as in PEFT.
            hotswap: not supported for text encoders.
            metadata: PEFT's configuration, if it was saved with the LoRA.

        Raises:
            ValueError: `hotswap` is asked for.
        """
        start = f"{prefix or cls.text_encoder_name}."
        tensors = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        if not tensors:
            return  # a LoRA for only the UNet
        if not any(name.endswith(".lora_B.weight") for name in tensors):
            raise ValueError(f"these tensors are not named as PEFT names a LoRA's: {_some(list(tensors))}")
        if hotswap:
            raise ValueError("a text encoder's LoRA cannot be swapped while it is hot; omit hotswap")
        from peft import LoraConfig

        saved = {name.removeprefix(start): value for name, value in (metadata or {}).items() if name.startswith(start)}
        alphas = {name.removeprefix(start): alpha for name, alpha in (network_alphas or {}).items()}
        name = adapter_name or get_adapter_name(text_encoder)
        text_encoder.load_adapter(
            adapter_name=name,
            adapter_state_dict=tensors,
            peft_config=LoraConfig(**(saved or _lora_config(tensors, alphas))),
            low_cpu_mem_usage=low_cpu_mem_usage,
        )
        scale_lora_layers(text_encoder, weight=lora_scale)
        text_encoder.to(device=text_encoder.device, dtype=text_encoder.dtype)


def _lora_config(tensors: Mapping[str, Tensor], network_alphas: Mapping[str, float]) -> dict[str, Any]:
    """PEFT's configuration of a LoRA, derived from the shapes of its tensors."""
    ending = ".lora_B.weight"
    ranks = {name.removesuffix(ending): value.shape[1] for name, value in tensors.items() if name.endswith(ending)}
    alphas = {
        layer: next((a for name, a in network_alphas.items() if name.startswith(f"{layer}.")), rank)
        for layer, rank in ranks.items()
    }
    most = max(ranks.values())
    return {
        "r": most,
        "rank_pattern": {layer: rank for layer, rank in ranks.items() if rank != most},
        "lora_alpha": most,
        "alpha_pattern": {layer: alpha for layer, alpha in alphas.items() if alpha != most},
        "target_modules": sorted(ranks),
    }


def _plain(layer: str) -> str:
    """The name of a layer without adapters."""
    return layer.removesuffix(".base_layer")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_QUOTED]) + (", ..." if len(names) > _QUOTED else "")


def _of_layers(alphas: Mapping[str, float] | None, tensors: Weights) -> dict[str, float] | None:
    """The alphas of the layers of some tensors, because diffusers fails on other alphas."""
    if not alphas:
        return None
    layers = {_LAYER.split(name, maxsplit=1)[0] for name in tensors}
    return {name: alpha for name, alpha in alphas.items() if _LAYER.split(name, maxsplit=1)[0] in layers}


def _take_off(module: Any, adapter: str) -> None:
    """Removes an adapter from a module, even if it was only partly added."""
    layers = adapted_layers(module)
    for name, layer in layers.items():
        layer.delete_adapter(adapter)
        if not layer.lora_A:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, layer.base_layer)
    configs = getattr(module, "peft_config", {})
    configs.pop(adapter, None)
    if not configs and hasattr(module, "peft_config"):
        del module.peft_config
        module._hf_peft_config_loaded = False
