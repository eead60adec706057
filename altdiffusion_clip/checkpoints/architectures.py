"""The tensors that each part of a checkpoint should have, and the configurations of the published sizes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from altdiffusion_clip.checkpoints.altclip import published_name
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors

CONFIGS = Path(__file__).parent / "configs"
"""Configurations of the published checkpoints, for single files without one. Those of m2 and m9 are equal."""

LANGUAGES = {
    "m2": "en zh",
    "m9": "en zh es fr ru ja ko ar it",
    "m18": "en zh ja th ko hi uk ar tr vi pl nl pt it es de fr ru",
}

CONFIG_FILES = {
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "text_encoder": "text_encoder/config.json",
    "altclip": "scorer/config.json",
}
"""The subfolder of each part's configuration. An AltCLIP folder has its own at the top."""

# Buffers that older libraries saved, XLM-R's unused pooler, and a scale that stage files contain.
_UNUSED = re.compile(r"(^|\.)position_ids$|roberta\.pooler\.|^(text_model\.)?pooler\.")


def published_configs(text_encoder: CheckpointTensors) -> Path | None:
    """The configurations of the published checkpoint whose text encoder has this size, if there is one."""
    embeddings, projection = "roberta.embeddings.word_embeddings.weight", "transformation.weight"
    if embeddings not in text_encoder or projection not in text_encoder:
        return None
    if text_encoder.shape(embeddings) != (250002, 1024):
        return None
    if "transformation_pre.weight" in text_encoder:
        return CONFIGS / "m18" if text_encoder.shape(projection) == (1024, 1024) else None
    return CONFIGS / "m2-m9" if text_encoder.shape(projection) == (768, 1024) else None


def model_name(text_encoder: CheckpointTensors, hint: str = "") -> str:
    """Which AltDiffusion or AltCLIP a text encoder belongs to: "m18", "m9", "m2", or "m2 or m9".

    The tensors of m2 and m9 have the same names and shapes, so only the name of the checkpoint tells them apart.

    Args:
        text_encoder: its tensors.
        hint: the name of the checkpoint.
    """
    if "transformation_pre.weight" in text_encoder or "m18" in hint.lower():
        return "m18"
    if text_encoder.shape("transformation.weight")[0] == 1024:  # an AltCLIP-m18, without the second projection
        return "m18"
    named = re.search(r"m(2|9)(?!\d)", hint.lower())
    return f"m{named[1]}" if named else "m2 or m9"


def languages(model: str) -> str:
    """The ISO codes of a model's languages, or a phrase if the model is ambiguous."""
    return LANGUAGES.get(model) or " or ".join(f"{codes} ({m})" for m, codes in list(LANGUAGES.items())[:2])


def expected_shapes(part: str, config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """The names and shapes of a part's tensors according to its configuration. Nothing is allocated.

    Args:
        part: "unet", "vae", "text_encoder" or "altclip".
        config: its config.json.
    """
    with torch.device("meta"):
        state = _build(part, dict(config)).state_dict()
    return {published_name(name) if part == "altclip" else name: value.shape for name, value in state.items()}


def is_unused(name: str) -> bool:
    """Whether this is an unused tensor that published files may contain."""
    return _UNUSED.search(name) is not None


def _build(part: str, config: dict[str, Any]) -> torch.nn.Module:
    # Imported here, because each import takes time and most checkpoints need few of them.
    if part == "unet":
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel.from_config(config)
    if part == "vae":
        from diffusers import AutoencoderKL

        return AutoencoderKL.from_config(config)
    if part == "text_encoder":
        from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

        return RobertaSeriesModelWithTransformation(RobertaSeriesConfig(**config))
    from transformers import AltCLIPConfig, AltCLIPModel

    return AltCLIPModel(AltCLIPConfig(**config))
