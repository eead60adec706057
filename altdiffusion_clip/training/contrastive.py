"""Stage 2, contrastive: the student's texts against pictures, the vision tower frozen.

AltCLIP (arXiv 2211.06679, section 3.2); the frozen tower is LiT's (arXiv 2111.07991).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.training.loop import LoopConfig, device_of, optimise, to_device
from altdiffusion_clip.training.losses import info_nce


@dataclass(frozen=True)
class TextImageBatch:
    """Captions, the projected features of pictures, and which captions are true of which pictures.

    Attributes:
        input_ids: int64 (texts, length).
        attention_mask: int64 (texts, length).
        image_features: float (images, projection_dim), of the frozen tower, computed once.
        positives: bool (texts, images).
    """

    input_ids: Tensor
    attention_mask: Tensor
    image_features: Tensor
    positives: Tensor


def train_contrastive(
    scorer: AltCLIPScorer, batch: Callable[[torch.Generator], TextImageBatch], config: LoopConfig, checkpoint: Path
) -> AltCLIPScorer:
    """Trains the text tower, its projection and the temperature; the vision half stays as it is.

    Args:
        scorer: trained in place.
        batch: draws a batch.
        config: of the loop.
        checkpoint: file to save to and to resume from.
    """
    scorer.requires_grad_(True)
    for part in (scorer.vision_model, scorer.visual_projection):
        part.requires_grad_(False)

    def loss_at(generator: torch.Generator) -> Tensor:
        drawn = to_device(batch(generator), device_of(scorer))
        features = scorer.get_text_features(drawn.input_ids, drawn.attention_mask)
        return info_nce(features, drawn.image_features, scorer.logit_scale, drawn.positives)

    return optimise(scorer, loss_at, config, checkpoint, "contrastive")
