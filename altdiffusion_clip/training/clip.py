"""A CLIP from nothing (Radford et al., arXiv 2103.00020): the English-only teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel

from altdiffusion_clip.training.loop import LoopConfig, device_of, optimise, to_device
from altdiffusion_clip.training.losses import info_nce


@dataclass(frozen=True)
class ImageTextBatch:
    """Captions, pictures, and which captions are true of which pictures.

    Attributes:
        input_ids: int64 (texts, length).
        attention_mask: int64 (texts, length).
        pixel_values: float (images, 3, side, side), normalised for the vision tower.
        positives: bool (texts, images).
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    positives: Tensor


def train_clip(
    clip: CLIPModel, batch: Callable[[torch.Generator], ImageTextBatch], config: LoopConfig, checkpoint: Path
) -> CLIPModel:
    """Trains both towers with InfoNCE.

    Args:
        clip: trained in place.
        batch: draws a batch.
        config: of the loop.
        checkpoint: file to save to and to resume from.
    """

    def loss_at(generator: torch.Generator) -> Tensor:
        drawn = to_device(batch(generator), device_of(clip))
        outputs = clip(drawn.input_ids, drawn.pixel_values, drawn.attention_mask)
        return info_nce(outputs.text_embeds, outputs.image_embeds, clip.logit_scale, drawn.positives)

    return optimise(clip, loss_at, config, checkpoint, "CLIP teacher")
