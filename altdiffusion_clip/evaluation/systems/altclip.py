"""AltCLIP: m2, m9 and m18."""

from typing import Any

import torch

from altdiffusion_clip.evaluation.systems.base import Towers
from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.scoring import AltCLIPScorer


class AltCLIPSystem(Towers):
    """Our scorer, as it ranks pictures.

    Args:
        scorer: with its processor.
        name: to be shown.
    """

    def __init__(self, scorer: AltCLIPScorer, name: str) -> None:
        processor: Any = scorer.processor
        super().__init__(
            name,
            {"altclip": scorer},
            lambda ids, mask: scorer.get_text_features(ids, mask),
            lambda inputs: scorer.get_image_features(inputs["pixel_values"]),
            processor.tokenizer,
            processor.image_processor,
            min(processor.tokenizer.model_max_length, WINDOW),
            logit_scale=float(scorer.logit_scale.detach().exp()),
        )


def load(name: str, device: torch.device, dtype: torch.dtype) -> AltCLIPSystem:
    """Loads an AltCLIP from a folder, a single file or a hub id.

    Raises:
        CheckpointError: it is none.
    """
    scorer = AltCLIPScorer.from_pretrained(name, dtype=dtype).to(device).eval()
    return AltCLIPSystem(scorer, name)
