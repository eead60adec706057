"""Trains a LoRA (arXiv 2106.09685) for an AltDiffusion: a style or a thing in a few megabytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import _collate_lora_metadata
from torch import nn

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.align import (
    Parts,
    check_compiled,
    load_parts,
    new_conditioning,
    new_source,
    prepare_pictures,
    sampler,
)
from altdiffusion_clip.training.configs import LoraConfig
from altdiffusion_clip.training.diffusion import Denoiser
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.loop import optimise
from altdiffusion_clip.training.models import MODEL, save_model

ON_THE_UNET = ("to_q", "to_k", "to_v", "to_out.0")
ON_THE_TEXT_ENCODER = ("query", "key", "value")


def train_lora(config: LoraConfig) -> Path | Estimate:
    """Trains a LoRA on captioned pictures. Continues a run in the same folder.

    Args:
        config: of the run.

    Returns:
        The folder of the LoRA, for `pipeline.load_lora_weights`; for a dry run, an estimate.

    Raises:
        UserError: a model or a file cannot be used, or peft is not installed. The message says what to do.
    """
    accelerator = new_accelerator(config)
    save_settings(config, accelerator)
    parts = load_parts(config.model, config.text_encoder)
    add_lora(parts, config.rank, config.train_text_encoder, config.targets, config.seed)
    mix = {"languages": config.languages, "temperature": config.temperature, "weights": config.weights}
    mix |= {"encoding": config.encoding}
    pictures = prepare_pictures(config.data, config, parts, accelerator, **mix)
    if config.dry_run:
        return estimate(
            config,
            trained_of(parts, config.train_text_encoder),
            tokens=pictures.tokens.lengths,
            examples=len(pictures),
            beside=[] if config.train_text_encoder else [parts.text_encoder],
        )
    if (config.output / MODEL).exists():
        return config.output / MODEL
    conditioning = new_conditioning(config, parts, accelerator)
    source = new_source(config, parts, pictures, conditioning, accelerator)
    denoiser = Denoiser(parts.unet, parts.noise_schedule, conditioning, config.train_text_encoder)

    if config.compile:
        check_compiled(denoiser, source, accelerator)
    denoiser = optimise(
        denoiser, source, config, "LoRA", accelerator=accelerator, validate=sampler(parts, config, accelerator)
    )
    parts.take(denoiser)
    return save_model(accelerator, config, lambda folder: save_lora(parts, folder, config.train_text_encoder))


def add_lora(
    parts: Parts, rank: int, train_text_encoder: bool, targets: Sequence[str] = ON_THE_UNET, seed: int = 0
) -> None:
    """Freezes a model and adds new LoRAs, which change nothing until they are trained.

    Args:
        parts: of the model.
        rank: of the LoRAs.
        train_text_encoder: also add one to the text encoder.
        targets: layers of the UNet to adapt.
        seed: of the initial weights.

    Raises:
        UserError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError("LoRAs need peft: pip install 'altdiffusion-clip[lora]'") from error
    torch.manual_seed(seed)
    parts.unet.requires_grad_(False)
    parts.unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)))
    if train_text_encoder:
        on_text = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ON_THE_TEXT_ENCODER))
        if getattr(parts.text_encoder, "transformation_pre", None) is not None:
            # m18's conditioning comes from the penultimate layer, so a LoRA on the last one would never learn.
            on_text.layers_pattern = "layer"
            on_text.layers_to_transform = list(range(parts.text_encoder.config.num_hidden_layers - 1))
        parts.text_encoder.add_adapter(on_text)


def trained_of(parts: Parts, train_text_encoder: bool) -> nn.Module:
    """The modules that a LoRA run trains."""
    return nn.ModuleList([parts.unet, parts.text_encoder]) if train_text_encoder else parts.unet


def save_lora(parts: Parts, folder: Path, with_text_encoder: bool) -> None:
    """Writes the LoRAs of a model in diffusers' format."""
    from peft import get_peft_model_state_dict

    modules: dict[str, Any] = {"unet": parts.unet}
    if with_text_encoder:
        modules["text_encoder"] = parts.text_encoder
    AltDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(parts.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(parts.text_encoder) if with_text_encoder else None,
        **_collate_lora_metadata(modules),
    )
