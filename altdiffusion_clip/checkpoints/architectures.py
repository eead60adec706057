"""What each part of a checkpoint consists of, and the configurations of the published sizes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from altdiffusion_clip.checkpoints.altclip import published_name
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors

CONFIGS = Path(__file__).parent / "configs"
"""Configurations of the published checkpoints, for single files, which have none. m2 and m9 have equal ones."""

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
"""Where a folder has the configuration of each part; a folder that is an AltCLIP has its own at the top."""

# Buffers that older libraries saved, XLM-R's pooler that nothing reads, and a scale that stage files carry.
_UNUSED = re.compile(r"(^|\.)position_ids$|roberta\.pooler\.|^(text_model\.)?pooler\.")


def published_configs(text_encoder: CheckpointTensors) -> Path | None:
    """The configurations of the published checkpoint that has a text encoder of this size, if there is one."""
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

    m2 and m9 have tensors of the same names and shapes, so only what the checkpoint is called tells them apart.

    Args:
        text_encoder: its tensors.
        hint: what the checkpoint is called.
    """
    if "transformation_pre.weight" in text_encoder or "m18" in hint.lower():
        return "m18"
    if text_encoder.shape("transformation.weight")[0] == 1024:  # an AltCLIP-m18, which lacks the second projection
        return "m18"
    named = re.search(r"m(2|9)(?!\d)", hint.lower())
    return f"m{named[1]}" if named else "m2 or m9"


def languages(model: str) -> str:
    """The ISO codes of a model's languages, in words where it is not known which model it is."""
    return LANGUAGES.get(model) or " or ".join(f"{codes} ({m})" for m, codes in list(LANGUAGES.items())[:2])


def expected_shapes(part: str, config: Mapping[str, Any]) -> dict[str, torch.Size]:
    """The names and shapes of a part's tensors, from its configuration; nothing is allocated.

    Args:
        part: "unet", "vae", "text_encoder" or "altclip".
        config: its config.json.
    """
    with torch.device("meta"):
        state = _build(part, dict(config)).state_dict()
    return {published_name(name) if part == "altclip" else name: value.shape for name, value in state.items()}


def is_unused(name: str) -> bool:
    """Whether published files may carry this tensor although nothing reads it."""
    return _UNUSED.search(name) is not None


def _build(part: str, config: dict[str, Any]) -> torch.nn.Module:
    # Imported here: each of these takes its time, and most checkpoints need few of them.
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
