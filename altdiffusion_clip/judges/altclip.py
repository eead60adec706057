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
    """Our scorer as a judge. If it shares its text tower with a pipeline, it follows that from device to device.

    Args:
        scorer: with its processor.
        name: to show.
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
        """The device that it computes on, also if its text tower is offloaded."""
        self.scorer.follow()
        return self.scorer.vision_model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in."""
        return self.scorer.vision_model.dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves it, unless a pipeline decides its device."""
        return self if self.scorer.is_shared else super().to(device, dtype)

    def read_at_length(self, long_text: str) -> None:
        """Chooses how to read long texts. XLM-R has positions for some 500 tokens.

        Raises:
            UserError: the way is unknown, or the text encoder has no more positions.
        """
        positions = self.scorer.text_model.most_tokens
        if long_text == "full" and positions > WINDOW + 1:
            self.long_text, self.max_length = long_text, positions
        else:
            super().read_at_length(long_text)

    def _read(self, texts: Sequence[str]) -> Tensor:
        # The scorer itself warns of each text that is cut, with what was lost.
        return self.scorer.encode_texts(texts, max_length=self.max_length)


def load(name: str, spec: str, device: torch.device, dtype: torch.dtype) -> AltCLIPJudge:
    """Loads an AltCLIP from a folder, a single file or a hub id.

    Raises:
        UserError: it is not an AltCLIP.
    """
    try:
        scorer = AltCLIPScorer.from_pretrained(spec, dtype=dtype).to(device).eval()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise error if isinstance(error, UserError) else UserError(f"cannot load {spec}: {one_line(error)}") from error
    return AltCLIPJudge(scorer, name)
