"""The conditioning of a UNet: a frozen text encoder's states, computed at each step or precomputed on disk."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.data.arrays import Ragged, RaggedParts, RaggedWriter


class Conditioning:
    """Computes states and cross-attention mask of tokenised captions, as a pipeline gives them to its UNet.

    A pipeline pads every prompt to 77 tokens. The padding rows of our text encoder are equal, so one row represents all
    of them, with the logarithm of their number added to its logit. CLIP's padding rows differ, so all are kept.

    Args:
        text_encoder: a `RobertaSeriesModelWithTransformation`, or a CLIPTextModel.
        pad_token_id: of the tokenizer.
        is_fixed: always give 77 rows, so that a compiled UNet sees one shape. Rows beyond a prompt's padding are
            masked.
    """

    def __init__(self, text_encoder: Any, pad_token_id: int, is_fixed: bool = False) -> None:
        self.text_encoder, self._pad, self.is_fixed = text_encoder, pad_token_id, is_fixed
        config = text_encoder.config
        self.is_short = isinstance(text_encoder, RobertaSeriesModelWithTransformation) and config.use_attention_mask

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encodes captions.

        Args:
            input_ids: int64 (batch, length), padded on the right, at most `WINDOW` tokens.
            attention_mask: int64 (batch, length).

        Returns:
            States, float (batch, rows, dim), and the mask for diffusers' UNet, float (batch, rows), or None with all 77
            rows.
        """
        lengths = attention_mask.sum(1)
        # Fixed rows need no number from the GPU, which would force a wait and end a graph recording.
        rows = WINDOW if self.is_fixed or not self.is_short else self._rows(int(lengths.max()) + 1)
        padded = torch.full((len(input_ids), rows), self._pad, dtype=input_ids.dtype, device=input_ids.device)
        columns = min(rows, input_ids.shape[1])
        padded[:, :columns] = torch.where(attention_mask[:, :columns].bool(), input_ids[:, :columns], self._pad)
        if isinstance(self.text_encoder, RobertaSeriesModelWithTransformation):
            given = (torch.arange(rows, device=lengths.device)[None, :] < lengths[:, None]).long()
            mask = given if self.text_encoder.config.use_attention_mask else None
            states = self.text_encoder(padded, attention_mask=mask).projection_state
        else:
            states = self.text_encoder(padded).last_hidden_state
        return states, padding_counts(lengths, rows) if self.is_short else None

    @torch.no_grad()
    def write(self, tokens: Ragged, captions: range, folder: Path, batch_size: int = 256) -> None:
        """Encodes some captions and stores them in half precision."""
        device = self.text_encoder.device
        config = self.text_encoder.config
        width = getattr(config, "project_dim", None) or config.hidden_size
        with RaggedWriter(folder, "float16", width) as out:
            for start in range(captions.start, captions.stop, batch_size):
                ids, mask = tokens.padded(range(start, min(captions.stop, start + batch_size)))
                states, _ = self(ids.long().to(device), mask.to(device))
                for row, length in zip(states.half().cpu().numpy(), mask.sum(1).tolist(), strict=True):
                    out.add(row[: min(length + 1, WINDOW)] if self.is_short else row)

    def read(self, states: RaggedParts, rows: list[int]) -> tuple[Tensor, Tensor | None]:
        """The output of `__call__` for captions that `write` has encoded."""
        values, mask = states.padded(rows)
        if not self.is_short:
            return values.float(), None
        # Each ends with a padding row, unless it fills the window.
        lengths = mask.sum(1)
        lengths = torch.where(lengths < WINDOW, lengths - 1, lengths)
        count = self._rows(values.shape[1])
        return pad(values.float(), (0, 0, 0, count - values.shape[1])), padding_counts(lengths, count)

    def _rows(self, needed: int) -> int:
        return WINDOW if self.is_fixed else min(needed, WINDOW)


def padding_counts(lengths: Tensor, rows: int) -> Tensor:
    """The mask that makes one padding row count as often as there are in a pipeline's padded prompt.

    It should add log n to the row's logit. The UNet turns a mask m into the bias (m - 1) · 10000, so the mask is
    slightly above 1.

    Args:
        lengths: int64 (batch,), tokens of each prompt.
        rows: of the states.

    Returns:
        float (batch, rows).
    """
    position = torch.arange(rows, device=lengths.device)
    multiplicity = (WINDOW - lengths[:, None]).clamp(min=1).log() / 10000
    is_padding = position[None, :] == lengths[:, None]
    return torch.where(is_padding, 1 + multiplicity, (position[None, :] < lengths[:, None]).float())
