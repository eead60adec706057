"""AltCLIP: m2, m9 and m18."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.judges.dual import DualEncoder
from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.scoring import AltCLIPScorer


class AltCLIPJudge(DualEncoder):
    """Our scorer. It may share its text tower with a pipeline, and follows that where it goes.

    Args:
        scorer: with its processor.
        name: to be shown.
    """

    def __init__(self, scorer: AltCLIPScorer, name: str = "AltCLIP") -> None:
        if scorer.processor is None:
            raise UserError("this scorer has no processor; load it with from_pretrained")
        processor: Any = scorer.processor
        super().__init__(
            name,
            {"altclip": scorer},
            scorer.get_text_features,
            lambda inputs: scorer.get_image_features(inputs["pixel_values"]),
            processor.tokenizer,
            processor.image_processor,
            scorer.config.projection_dim,
            min(processor.tokenizer.model_max_length, WINDOW),
            logit_scale=float(scorer.logit_scale.detach().float().exp()),
        )
        self.scorer = scorer

    @property
    def device(self) -> torch.device:
        """Where it computes; if its text tower is offloaded, where that computes."""
        self.scorer.follow()
        return self.scorer.vision_model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its arithmetic."""
        return self.scorer.vision_model.dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves it, unless it is a pipeline's, which says where it is."""
        return self if self.scorer.is_shared else super().to(device, dtype)

    def read_at_length(self, long_text: str) -> None:
        """Chooses what is done with long texts; XLM-R has places for some 500 tokens.

        Raises:
            UserError: there is no such way, or it has no more places.
        """
        positions = self.scorer.text_model.most_tokens
        if long_text == "full" and positions > WINDOW + 1:
            self.long_text, self.max_length = long_text, positions
        else:
            super().read_at_length(long_text)

    def _read(self, texts: Sequence[str]) -> Tensor:
        # It names each text that is cut in a warning, with what was lost.
        return self.scorer.encode_texts(texts, max_length=self.max_length)


def load(name: str, spec: str, device: torch.device, dtype: torch.dtype) -> AltCLIPJudge:
    """Loads an AltCLIP from a folder, a single file or a hub id.

    Raises:
        UserError: it is none.
    """
    try:
        scorer = AltCLIPScorer.from_pretrained(spec, dtype=dtype).to(device).eval()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise error if isinstance(error, UserError) else UserError(f"cannot load {spec}: {one_line(error)}") from error
    return AltCLIPJudge(scorer, name)
