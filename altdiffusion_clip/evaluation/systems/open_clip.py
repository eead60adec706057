"""Models of open_clip, an optional extra."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.evaluation.systems.base import fingerprint_of, unit


class OpenCLIPSystem:
    """A model, its tokenizer and its preprocessing, as open_clip makes them.

    Args:
        name: to be shown.
        model: of open_clip.
        preprocess: of pictures, for evaluation.
        tokenizer: of texts; it cuts them to what the model reads.
        device: the model's.
    """

    def __init__(self, name: str, model: Any, preprocess: Any, tokenizer: Any, device: torch.device) -> None:
        self.name = name
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        self._model, self._preprocess, self._tokenizer, self._device = model.eval(), preprocess, tokenizer, device

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the CPU."""
        return unit(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit vectors, float32 (images, dim), on the CPU."""
        pixels = torch.stack([self._preprocess(image) for image in images])
        return unit(self._model.encode_image(pixels.to(self._device, next(self._model.parameters()).dtype)))

    def fingerprint(self) -> str:
        """Of weights and preprocessing."""
        digest = hashlib.blake2b(fingerprint_of("open_clip", self._model.state_dict().items()), digest_size=16)
        digest.update(repr((self._preprocess, type(self._tokenizer))).encode())
        return digest.hexdigest()


def load(name: str, spec: str, device: torch.device, dtype: torch.dtype) -> OpenCLIPSystem:
    """Makes a model of open_clip.

    Args:
        name: to be shown.
        spec: "ARCHITECTURE@WEIGHTS": a name of open_clip's, and a file or one of its tags; or "hf-hub:OWNER/NAME".
        device: for it.
        dtype: of weights and arithmetic.

    Raises:
        UserError: open_clip is not installed, or does not know the model.
    """
    try:
        import open_clip
    except ImportError:
        raise UserError('open_clip is not installed; pip install "altdiffusion-clip[open-clip]"') from None
    architecture, _, weights = spec.partition("@")
    if not weights and not architecture.startswith("hf-hub:"):
        raise UserError(f"open_clip:{spec} names no weights; write open_clip:{architecture}@FILE, or a tag for FILE")
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=weights or None)
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:
        raise UserError(f"open_clip cannot make {spec}: {one_line(error)}") from error
    return OpenCLIPSystem(name, model.to(device, dtype), preprocess, tokenizer, device)
