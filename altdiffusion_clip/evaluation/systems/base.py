"""What every system can do, and what its adapters share."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.checkpoints.model_ids import fetch
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.long_pictures import middle_of_long

logger = logging.getLogger(__name__)


class System(Protocol):
    """A pair of encoders into one space.

    Attributes:
        name: to be shown.
        logit_scale: what cosines are multiplied with before a softmax (CLIP's inverse temperature).
    """

    name: str
    logit_scale: float

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the CPU."""

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors, float32 (images, dim), on the CPU, of RGB pictures."""

    def fingerprint(self) -> str:
        """Of everything that its vectors depend on: weights, tokenizer, preprocessing."""


class Towers:
    """A system of two functions over modules, with the warning for texts that are cut.

    Args:
        name: to be shown.
        modules: whose weights the vectors depend on.
        text_features: of token ids and mask, float (texts, dim).
        image_features: of what the image processor gives, float (images, dim).
        tokenizer: pads on the right.
        image_processor: transformers'.
        max_length: tokens of a text, with the special ones.
        pad_to_max: texts are padded to `max_length`, for towers that read their padding.
        logit_scale: what cosines are multiplied with.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        text_features: Callable[[Tensor, Tensor], Tensor],
        image_features: Callable[[dict[str, Tensor]], Tensor],
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        max_length: int,
        pad_to_max: bool = False,
        logit_scale: float = 100.0,
    ) -> None:
        self.name, self.logit_scale = name, logit_scale
        self._modules = {key: module.eval() for key, module in modules.items()}
        self._text_features, self._image_features = text_features, image_features
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self._max_length, self._pad_to_max = max_length, pad_to_max
        self._cut = 0

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the CPU; texts that are too long are cut, and counted in a warning."""
        encoded = self.tokenizer(
            list(texts),
            padding="max_length" if self._pad_to_max else True,
            max_length=self._max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = encoded.input_ids
        # Some tokenizers give none where the padding is read.
        mask = encoded.get("attention_mask", torch.ones_like(ids))
        self._warn(texts, mask)
        return unit(self._text_features(ids.to(self._place.device), mask.to(self._place.device)))

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors, float32 (images, dim), on the CPU."""
        place = self._place
        cut = [middle_of_long(image, self.image_processor) for image in images]
        processed = self.image_processor(cut, return_tensors="pt")
        inputs = {
            key: value.to(place.device, place.dtype) if value.is_floating_point() else value.to(place.device)
            for key, value in processed.items()
        }
        return unit(self._image_features(inputs))

    def fingerprint(self) -> str:
        """Of weights, tokenizer and preprocessing."""
        digest = hashlib.blake2b(digest_size=16)
        for key, module in self._modules.items():
            digest.update(fingerprint_of(key, module.state_dict().items()))
        tokens = json.dumps([sorted(self.tokenizer.get_vocab().items()), self._max_length, self._pad_to_max])
        digest.update(tokens.encode())
        digest.update(json.dumps(self.image_processor.to_dict(), sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @property
    def _place(self) -> Tensor:
        return next(next(iter(self._modules.values())).parameters())

    def _warn(self, texts: Sequence[str], mask: Tensor) -> None:
        full = [text for text, length in zip(texts, mask.sum(1).tolist(), strict=True) if length >= self._max_length]
        if not full:
            return
        lengths = self.tokenizer(full, verbose=False).input_ids
        cut = [text for text, ids in zip(full, lengths, strict=True) if len(ids) > self._max_length]
        if cut and not self._cut:
            logger.warning("%s reads %d tokens; longer texts are cut, as %r", self.name, self._max_length, cut[0][:60])
        self._cut += len(cut)


def unit(features: Tensor) -> Tensor:
    """Rows of length one, float32, on the CPU."""
    return F.normalize(features.float(), dim=-1).cpu()


def fingerprint_of(name: str, tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """A hash of named tensors, with their names, shapes and dtypes."""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for key, tensor in tensors:
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def place_of(name: str) -> Path:
    """The folder of a system's name.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return fetch(name)
    except OSError as error:
        raise UserError(f"cannot get {name}: {one_line(error)}") from error


def loaded(what: str, place: Path, loader: Callable[..., Any], **kwargs: Any) -> Any:
    """Loads a part, with one line for what goes wrong.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return loader(place, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
        raise UserError(f"cannot load {place} as {what}: {one_line(error)}") from error


def max_length_of(tokenizer: PreTrainedTokenizerBase, positions: int) -> int:
    """How many tokens a tower reads: what its tokenizer says, if it says anything, and no more than it has places."""
    return min(tokenizer.model_max_length, positions)
