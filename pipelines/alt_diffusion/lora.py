"""LoRAs on XLM-RoBERTa, whose layers diffusers' loader does not know the names of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusers import StableDiffusionPipeline
from diffusers.utils import get_adapter_name, scale_lora_layers
from torch import Tensor


class AltDiffusionLoraMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`load_lora_weights` for every AltDiffusion pipeline; put it before the diffusers class.

    A LoRA on the text encoder is added with
    `pipe.text_encoder.add_adapter(LoraConfig(target_modules=["query", "key", "value"]))`, and saved by diffusers'
    `save_lora_weights(folder, text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder))`.
    """

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
        """Loads a LoRA into the text encoder, where diffusers' loader takes CLIP's layers only.

        Load it before `enable_model_cpu_offload` and its like.

        Args:
            state_dict: the LoRA's tensors, named as PEFT names them.
            network_alphas: of its layers; without one, a layer's alpha is its rank.
            text_encoder: a `RobertaSeriesModelWithTransformation`.
            prefix: before the names of the text encoder's tensors, "text_encoder" if not given.
            lora_scale: how much of it is added.
            adapter_name: for `set_adapters`.
            _pipeline: as diffusers gives it.
            low_cpu_mem_usage: as PEFT's.
            hotswap: not possible for text encoders.
            metadata: PEFT's configuration, if it was saved with the LoRA.

        Raises:
            ValueError: `hotswap` is asked for.
        """
        start = f"{prefix or cls.text_encoder_name}."
        tensors = {name.removeprefix(start): value for name, value in state_dict.items() if name.startswith(start)}
        if not tensors:
            return  # a LoRA of the UNet alone
        if hotswap:
            raise ValueError("a text encoder's LoRA cannot be swapped while it is hot; leave hotswap away")
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
    """PEFT's configuration of a LoRA, from the shapes of its tensors."""
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
