"""Full-size AltDiffusion and AltCLIP models with random weights, the same for ours and the references."""

from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as deprecated
from diffusers.pipelines.deprecated.alt_diffusion.pipeline_alt_diffusion import (
    AltDiffusionPipeline as DeprecatedAltDiffusionPipeline,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, XLMRobertaTokenizer
from transformers.initialization import no_init_weights

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.architectures import CONFIGS
from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

SIZES = CONFIGS / "m2-m9"
CLIP_VIT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}


def randomise(model: nn.Module) -> None:
    """Small random weights, which is faster than the classes' own initialisation. LayerNorms are near the identity."""
    for name, parameter in model.named_parameters():
        is_scale = "norm" in name.lower() and name.endswith("weight")
        parameter.data.normal_(1.0 if is_scale else 0.0, 0.02)


def text_encoders() -> tuple[RobertaSeriesModelWithTransformation, Any]:
    """Our text encoder and diffusers' deprecated one, over the same tensors."""
    config = read_json(SIZES / "text_encoder" / "config.json")
    with no_init_weights():
        ours = RobertaSeriesModelWithTransformation(RobertaSeriesConfig(**config))
        theirs = deprecated.RobertaSeriesModelWithTransformation(deprecated.RobertaSeriesConfig(**config))
    randomise(ours)
    theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    return ours.eval(), theirs.eval()


def draw(pipe: Any, size: int, steps: int, count: int = 1) -> None:
    """Draws pictures of one prompt, from the same noise each time."""
    pipe(
        "雪山下的红色小屋",
        negative_prompt="模糊",
        height=size,
        width=size,
        num_inference_steps=steps,
        num_images_per_prompt=count,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )


def pipelines(names: tuple[str, ...] = ("ours", "plain", "deprecated")) -> dict[str, StableDiffusionPipeline]:
    """Pipelines that share a UNet, an autoencoder and, except for the plain one with a CLIP, a text encoder."""
    torch.manual_seed(0)
    ours, old = text_encoders()
    with no_init_weights():
        clip = CLIPTextModel(CLIPTextConfig(**CLIP_VIT_L)) if "plain" in names else None
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SIZES, subfolder="unet"))
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SIZES, subfolder="vae"))
    if clip is not None:
        randomise(clip)
    kinds: dict[str, tuple[type[StableDiffusionPipeline], Any]] = {
        "ours": (AltDiffusionPipeline, ours),
        "plain": (StableDiffusionPipeline, clip),
        "deprecated": (DeprecatedAltDiffusionPipeline, old),
    }
    made = {}
    for name in names:
        kind, text_encoder = kinds[name]
        made[name] = kind(
            vae=vae.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=XLMRobertaTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer", model_max_length=77),
            unet=unet.eval(),
            scheduler=PNDMScheduler.from_pretrained(SIZES, subfolder="scheduler"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        made[name].set_progress_bar_config(disable=True)
    return made
