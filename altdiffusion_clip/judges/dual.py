"""What judges with two towers have in common."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.checkpoints.model_ids import fetch
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.judges.preprocessing import Normalise, TransformersPreprocess
from altdiffusion_clip.prompts.windows import MARKS, after_a_mark

logger = logging.getLogger(__name__)
LONG_TEXT = ("truncate", "window-mean", "window-max", "full")
"""How a judge reads a text with too many tokens: cut it; read it in parts and use the mean vector or the best score; or
read all of it, if the tower has positions for it."""


class DualEncoder:
    """A judge made of two functions over modules, which warns of texts that are cut.

    Args:
        name: to show.
        modules: the modules whose weights the vectors depend on.
        text_features: maps token ids and mask to float (texts, dim).
        picture_features: maps the image processor's output to float (pictures, dim).
        tokenizer: pads on the right.
        image_processor: transformers'.
        dim: length of a vector.
        max_length: tokens of a text, including special ones.
        pad_to_max: pad texts to `max_length`, for towers that read their padding.
        logit_scale: factor of cosines.
        logit_bias: added afterwards, for towers trained with a sigmoid (SigLIP); None for a softmax.

    Attributes:
        long_text: how to read texts with more than `max_length` tokens, one of `LONG_TEXT`.
    """

    measure = "cosine"
    long_text = "truncate"

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        text_features: Callable[[Tensor, Tensor], Tensor],
        picture_features: Callable[[dict[str, Tensor]], Tensor],
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        dim: int,
        max_length: int,
        pad_to_max: bool = False,
        logit_scale: float = 100.0,
        logit_bias: float | None = None,
    ) -> None:
        self.name, self.dim, self.logit_scale, self.logit_bias = name, dim, logit_scale, logit_bias
        self.modules = {key: module.eval() for key, module in modules.items()}
        self._text_features, self._picture_features = text_features, picture_features
        self.tokenizer, self.max_length, self._pad_to_max = tokenizer, max_length, pad_to_max
        self.preprocess = TransformersPreprocess.of(image_processor)
        self._normalise = Normalise(self.preprocess)
        self._has_warned = False

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in."""
        return self._parameter.dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Changes its device and dtype."""
        for module in self.modules.values():
            module.to(device, dtype)
        return self

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim). A text that is cut is named in a warning."""
        if self.long_text != "window-mean":
            return self._read(texts)
        parts = [self.windows(text) for text in texts]
        vectors = self._read([part for each in parts for part in each])
        return unit(torch.stack([each.mean(0) for each in vectors.split([len(each) for each in parts])]))

    def windows(self, text: str) -> list[str]:
        """Splits a text into parts that fit, if possible after punctuation marks. No word is lost."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        special = len(self.tokenizer("").input_ids)
        if len(ids) + special <= self.max_length:
            return [text]
        ends_with_mark = [token[-1:] in MARKS for token in self.tokenizer.convert_ids_to_tokens(ids)]
        parts, start = [], 0
        while start < len(ids):
            end = min(start + self.max_length - special - 1, len(ids))  # a part may need one more token
            if end < len(ids):
                end = after_a_mark(ends_with_mark, start, end)
            parts.append(self.tokenizer.decode(ids[start:end]))
            start = end
        return parts

    def read_at_length(self, long_text: str) -> None:
        """Chooses how to read long texts.

        Raises:
            UserError: the way is unknown, or the text tower has no more positions.
        """
        if long_text not in LONG_TEXT:
            raise UserError(f"there is no way {long_text!r} to read long texts; choose one of {', '.join(LONG_TEXT)}")
        if long_text == "full":
            raise UserError(f"{self.name} reads {self.max_length} tokens at most; take window-mean or window-max")
        self.long_text = long_text

    def _read(self, texts: Sequence[str]) -> Tensor:
        return unit(self._text_features(*(each.to(self.device) for each in self._tokenize(texts))))

    @torch.no_grad()
    def picture_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Unit vectors, float32 (pictures, dim)."""
        return unit(self._picture_features(self._normalise(inputs, self.dtype)))

    def probability(self, scores: Tensor) -> Tensor:
        """See `probability_of`."""
        return probability_of(scores, self.logit_scale, self.logit_bias)

    def fingerprint(self) -> str:
        """A hash of weights, tokenizer and preprocessing."""
        digest = hashlib.blake2b(digest_size=16)
        for key, module in self.modules.items():
            digest.update(fingerprint_of(key, module.state_dict().items()))
        tokens = json.dumps([sorted(self.tokenizer.get_vocab().items()), self.max_length, self._pad_to_max])
        digest.update(tokens.encode())
        digest.update(self.preprocess.settings.encode())
        if self.long_text != "truncate":
            digest.update(self.long_text.encode())
        return digest.hexdigest()

    @property
    def _parameter(self) -> Tensor:
        return next(next(iter(self.modules.values())).parameters())

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = self.tokenizer(
            list(texts),
            padding="max_length" if self._pad_to_max else True,
            max_length=self.max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = encoded.input_ids
        # Some tokenizers return no mask if the tower reads its padding.
        mask = encoded.get("attention_mask", torch.ones_like(ids))
        if not self._has_warned:
            self._has_warned = warn_of_cut(self.name, self.tokenizer, texts, mask, self.max_length)
        return ids, mask


def warn_of_cut(
    name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], mask: Tensor, max_length: int
) -> bool:
    """Warns of texts that a judge has cut. Returns whether there are any.

    Args:
        name: of the judge.
        tokenizer: of the judge.
        texts: that it read.
        mask: of the tokens, int64 (texts, length).
        max_length: tokens that it reads.
    """
    full = [text for text, length in zip(texts, mask.sum(1).tolist(), strict=True) if length >= max_length]
    lengths = tokenizer(full, verbose=False).input_ids if full else []
    cut = [text for text, ids in zip(full, lengths, strict=True) if len(ids) > max_length]
    if cut:
        logger.warning("%s reads %d tokens; longer texts are cut, as %r", name, max_length, cut[0][:60])
    return bool(cut)


def probability_of(cosines: Tensor, logit_scale: float, logit_bias: float | None) -> Tensor:
    """The softmax of logit_scale · cosine over the pictures, or the sigmoid of each if there is a bias."""
    logits = logit_scale * cosines
    return logits.softmax(0) if logit_bias is None else (logits + logit_bias).sigmoid()


def unit(features: Tensor) -> Tensor:
    """Normalises rows, as float32."""
    return F.normalize(features.float(), dim=-1)


def fingerprint_of(name: str, tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """A hash of tensors with their names, shapes and dtypes."""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for key, tensor in tensors:
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def place_of(name: str) -> Path:
    """The local folder or file of a model.

    Raises:
        UserError: it cannot be found or downloaded.
    """
    try:
        return fetch(name)
    except OSError as error:
        raise UserError(f"cannot get {name}: {one_line(error)}") from error


def loaded(what: str, place: Path, loader: Callable[..., Any], **kwargs: Any) -> Any:
    """Loads a part, and turns any error into one line.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return loader(place, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        raise UserError(f"cannot load {place} as {what}: {one_line(error)}") from error


def max_length_of(tokenizer: PreTrainedTokenizerBase, positions: int) -> int:
    """How many tokens a tower reads: its tokenizer's limit if there is one, and at most its positions."""
    return min(tokenizer.model_max_length, positions)
