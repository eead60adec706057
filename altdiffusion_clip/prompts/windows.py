"""Turns prompts into token ids, and warns of every word that is cut."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.weights import WeightedText

logger = logging.getLogger(__name__)

WINDOW = 77
"""Tokens in one encoding, including the two special ones: CLIP's length, kept by AltCLIP and Stable Diffusion."""

_LOOK_BACK = 20
"""How many tokens before its end a window may end at a punctuation mark."""

_QUOTED = 2000
"""How many of the characters that were cut a warning quotes."""

MARKS = frozenset(",.;:!?，。；：！？、،؛؟।|")


def cut_to_window(ids: list[int]) -> list[int]:
    """Cuts the tokens of a text to one window, and keeps the token that ends the text.

    Example:
        >>> cut_to_window([0, 5, 2]), cut_to_window([0, *range(100), 2])[-2:]
        ([0, 5, 2], [74, 2])
    """
    return ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_length: int | None = None, pad_to_max: bool = False
) -> tuple[Tensor, Tensor]:
    """Normalises and tokenises prompts, and warns of each that is cut, with the words that were lost.

    Args:
        tokenizer: XLM-R's or any other.
        prompts: one string each.
        max_length: tokens to keep, including special ones; by default the tokenizer's `model_max_length`, but at
            most `WINDOW`. (A published m18 tokenizer says 512, which its UNet never saw.)
        pad_to_max: pad to `max_length` instead of to the longest prompt.

    Returns:
        Ids and attention mask, int64 (prompts, length).
    """
    max_length = max_length or min(tokenizer.model_max_length, WINDOW)
    prompts = [normalise(prompt) for prompt in prompts]
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
            # The kept part ends with its own special token, so it holds one word token fewer.
            lost = tokenizer.decode(ids[max_length - 1 :], skip_special_tokens=True).strip()
            logger.warning(
                "the prompt %r has %d tokens and only %d are used; cut: %r",
                _short(prompt),
                len(ids),
                max_length,
                _short(lost, _QUOTED),
            )


@dataclass(frozen=True)
class Windows:
    """A prompt in as many windows as it needs.

    Attributes:
        input_ids: int64 (windows, WINDOW), each window with special tokens at its ends, padded on the right.
        weights: float32 (windows, WINDOW), 1 for special tokens and padding.
    """

    input_ids: Tensor
    weights: Tensor

    def key(self) -> tuple[bytes, bytes]:
        """A hashable key that is equal for equal windows."""
        return self.input_ids.numpy().tobytes(), self.weights.numpy().tobytes()


def split_into_windows(
    tokenizer: PreTrainedTokenizerBase, prompt: WeightedText, most: int = 1, window: int = WINDOW
) -> Windows:
    """Tokenises a prompt as one text, and splits its tokens into windows.

    A window ends after a punctuation mark if there is one among its last twenty tokens. Text beyond the last window is
    cut, with a warning that quotes it.

    Args:
        tokenizer: XLM-R's; it must be a fast tokenizer, because weights are found by character offsets.
        prompt: from `parse_weights`.
        most: how many windows at most.
        window: tokens in each, including special ones.

    Example:
        >>> from altdiffusion_clip.checkpoints.model_ids import resolve
        >>> from altdiffusion_clip.prompts.weights import parse_weights
        >>> from transformers import AutoTokenizer
        >>> tokenizer = AutoTokenizer.from_pretrained(resolve("emoji-m18"), subfolder="tokenizer")
        >>> split_into_windows(tokenizer, parse_weights("a (red:1.5) apple")).input_ids.shape
        torch.Size([1, 77])
    """
    tokens = _weighted_tokens(tokenizer, prompt)
    parts: list[list[_Token]] = []
    start = 0
    while start < len(tokens) and len(parts) < most:
        end = min(start + window - 2, len(tokens))
        if end < len(tokens) and len(parts) + 1 < most:
            end = after_a_mark([token.ends_with_mark for token in tokens], start, end)
        parts.append(tokens[start:end])
        start = end
    if start < len(tokens):
        lost = tokenizer.decode([token.id for token in tokens[start:]]).strip()
        special = 2 * len(parts)
        logger.warning(
            "the prompt %r has %d tokens and only %d are used; cut: %r",
            _short(prompt.text),
            len(tokens) + special,
            start + special,
            _short(lost, _QUOTED),
        )
    input_ids = torch.full((max(1, len(parts)), window), tokenizer.pad_token_id)
    weights = torch.ones(input_ids.shape)
    for row, part in enumerate(parts or [[]]):
        whole = [tokenizer.cls_token_id, *(token.id for token in part), tokenizer.sep_token_id]
        input_ids[row, : len(whole)] = torch.tensor(whole)
        weights[row, 1 : 1 + len(part)] = torch.tensor([token.weight for token in part])
    return Windows(input_ids, weights)


@dataclass(frozen=True)
class _Token:
    id: int
    weight: float
    ends_with_mark: bool


def _weighted_tokens(tokenizer: PreTrainedTokenizerBase, prompt: WeightedText) -> list[_Token]:
    """The tokens of a prompt without its brackets and without special tokens, and their weights.

    A token that spans a bracket, as in languages without spaces, gets the mean weight of its characters.
    """
    encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = []
    for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
        # The space before a word belongs to the word's token, but not inside its brackets.
        weights = [prompt.weights[i] for i in range(start, end) if not prompt.text[i].isspace()]
        weight = sum(weights) / len(weights) if weights else 1.0
        tokens.append(_Token(token, weight, prompt.text[start:end][-1:] in MARKS))
    return tokens


def after_a_mark(ends_with_mark: Sequence[bool], start: int, end: int) -> int:
    """Where to end a window that begins at `start` and may extend to `end`.

    Args:
        ends_with_mark: whether each token ends with a punctuation mark.
        start: index of the window's first token.
        end: index after the last token that fits.
    """
    places = range(end, max(start, end - _LOOK_BACK), -1)
    return next((place for place in places if ends_with_mark[place - 1]), end)


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
