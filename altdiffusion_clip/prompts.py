"""From prompts to token ids, without losing a word in silence."""

import logging
from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

WINDOW = 77
"""Tokens that one encoding holds, with the two at its ends: CLIP's, kept by AltCLIP and Stable Diffusion."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int | None = None, pad_to_max: bool = False
) -> tuple[Tensor, Tensor]:
    """Tokenises prompts and warns of each that is cut, with the words that were lost.

    Args:
        tokenizer: XLM-R's, or any other.
        prompts: one string each.
        max_length: tokens kept, with the special ones; the tokenizer's `model_max_length`, `WINDOW` at most,
            if not given. (A published m18 tokenizer says 512, which its UNet never saw.)
        pad_to_max: pad to `max_length` instead of the longest prompt.

    Returns:
        Ids and attention mask, int64 (prompts, length).
    """
    max_length = max_length or min(tokenizer.model_max_length, WINDOW)
    prompts = list(prompts)
    warn_of_cuts(tokenizer, prompts, max_length)
    encoded = tokenizer(
        prompts,
        padding="max_length" if pad_to_max else True,
        max_length=max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids, encoded.attention_mask


def warn_of_cuts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int = WINDOW) -> None:
    """Warns of each prompt that has more than `max_length` tokens, with the words that will be lost."""
    # verbose=False: transformers' own warning speaks of indexing errors, which cutting prevents.
    for prompt, ids in zip(prompts, tokenizer(list(prompts), verbose=False).input_ids, strict=True):
        if len(ids) > max_length:
            # The kept part ends with a special token of its own, so one place fewer is left for words.
            lost = tokenizer.decode(ids[max_length - 1 :], skip_special_tokens=True).strip()
            logger.warning(
                "the prompt %r has %d tokens and only %d are used; cut: %r", _short(prompt), len(ids), max_length, lost
            )


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
