"""Judges that are transformers models with two towers: CLIP, Chinese-CLIP, SigLIP and SigLIP 2."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer, ChineseCLIPModel, CLIPModel, Siglip2Model, SiglipModel

from altdiffusion_clip.judges.dual import DualEncoder, loaded, max_length_of

_MODELS: dict[str, type[Any]] = {
    "clip": CLIPModel,
    "chinese_clip": ChineseCLIPModel,
    "siglip": SiglipModel,
    "siglip2": Siglip2Model,
}
MODEL_TYPES = tuple(_MODELS)
_CHINESE_CLIP_LENGTH = 52
"""Tokens of a text in Chinese-CLIP's own scripts. Its tokenizer and positions would allow 512."""


def load(name: str, place: Path, model_type: str, device: torch.device, dtype: torch.dtype) -> DualEncoder:
    """Loads a model in transformers' layout.

    Args:
        name: to show.
        place: the folder.
        model_type: one of `MODEL_TYPES`, from its config.json.
        device: to load it to.
        dtype: of the weights, and to compute in.

    Raises:
        UserError: it cannot be loaded.
    """
    model = loaded(f"a {model_type}", place, _MODELS[model_type].from_pretrained, dtype=dtype).to(device)
    tokenizer = loaded("a tokenizer", place, AutoTokenizer.from_pretrained)
    processor = loaded("an image processor", place, AutoImageProcessor.from_pretrained)
    positions = model.config.text_config.max_position_embeddings
    if model_type == "chinese_clip":
        positions = min(positions, _CHINESE_CLIP_LENGTH)
    # SigLIP was trained with visible padding, and reads the last position.
    is_siglip = model_type.startswith("siglip")

    def text_features(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        more = {} if is_siglip else {"attention_mask": mask}
        return model.get_text_features(input_ids=ids, **more).pooler_output

    def picture_features(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return model.get_image_features(**inputs).pooler_output

    return DualEncoder(
        name,
        {model_type: model},
        text_features,
        picture_features,
        tokenizer,
        processor,
        model.config.vision_config.hidden_size if is_siglip else model.config.projection_dim,
        max_length_of(tokenizer, positions),
        pad_to_max=is_siglip,
        logit_scale=float(model.logit_scale.detach().float().exp()),
        logit_bias=float(model.logit_bias.detach()) if is_siglip else None,
    )
