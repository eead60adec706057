"""Trains a CLIP from scratch (Radford et al., arXiv 2103.00020): the English-only teacher."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.image_text import Captioned
from altdiffusion_clip.training.data.pixels import normalised
from altdiffusion_clip.training.grad_cache import cached_backward
from altdiffusion_clip.training.loop import Tensors, optimise
from altdiffusion_clip.training.losses import info_nce
from altdiffusion_clip.training.temperature import clamp_temperature


class _Towers(nn.Module):
    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        text = self.clip.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        image = self.clip.get_image_features(normalised(pixels, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)).pooler_output
        return {"text_embeds": text, "image_embeds": image, "logit_scale": self.clip.logit_scale}


class _Pairs:
    def __init__(self, pictures: Captioned, pad_token_id: int, count: int) -> None:
        self._pictures, self._pad_token_id, self._count = pictures, pad_token_id, count

    def draw(self, generator: torch.Generator) -> Tensors:
        pictures, texts = self._pictures.draw(self._count, generator)
        return {"pictures": pictures, "texts": texts}

    def load(self, drawn: Tensors) -> Tensors:
        ids, mask = self._pictures.tokenised(drawn["texts"], self._pad_token_id)
        pixels = self._pictures.pixels_of(drawn["pictures"])
        return {"input_ids": ids, "attention_mask": mask, "pixels": pixels, **drawn}


def train_clip(
    clip: CLIPModel,
    pictures: Captioned,
    config: RunConfig,
    accelerator: Accelerator | None = None,
    folder: Path | None = None,
) -> CLIPModel:
    """Trains both towers with InfoNCE, which knows captions that are true of several pictures.

    Args:
        clip: to train, in place.
        pictures: with captions tokenised by the CLIP's own tokenizer.
        config: of the loop.
        accelerator: of the run.
        folder: of the run; by default `config.output`.
    """

    def loss_of(pictures_: Tensor, texts: Tensor, **embeds: Tensor) -> Tensor:
        return info_nce(**embeds, positives=pictures.positives(texts.cpu(), pictures_.cpu()).to(texts.device))

    def backward(accelerator: Accelerator, model: nn.Module, parts: list[Tensors]) -> Tensor:
        def loss(**named: Any) -> Tensor:
            return loss_of(named.pop("pictures"), named.pop("texts"), **named)

        return cached_backward(accelerator, model, parts, loss, fixed=("pictures", "texts"))

    source = _Pairs(pictures, clip.config.text_config.pad_token_id, config.batch_size)
    return optimise(
        _Towers(clip),
        source,
        config,
        "CLIP",
        backward=backward,
        accelerator=accelerator,
        folder=folder,
        after_step=clamp_temperature,
    ).clip
