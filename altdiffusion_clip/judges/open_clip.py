"""Judges from open_clip, an optional extra."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.judges.base import Inputs
from altdiffusion_clip.judges.dual import fingerprint_of, probability_of, unit
from altdiffusion_clip.judges.preprocessing import PIXELS


@dataclass(frozen=True)
class OpenCLIPPreprocess:
    """open_clip's transforms for a model.

    Args:
        description: of the transforms, for comparison.
        side: of the square that they produce.
        transforms: take a PIL picture.
    """

    description: str
    side: int
    transforms: Any = field(compare=False)

    def __call__(self, image: Image.Image) -> Inputs:
        """Prepares an RGB picture."""
        return {PIXELS: self.transforms(image).numpy()}


class OpenCLIPJudge:
    """An open_clip model with its tokenizer and preprocessing.

    Args:
        name: to show.
        model: from open_clip.
        preprocess: its transforms for evaluation.
        tokenizer: cuts texts to what the model reads.
    """

    measure = "cosine"

    def __init__(self, name: str, model: Any, preprocess: Any, tokenizer: Any) -> None:
        self.name = name
        self.logit_scale = float(model.logit_scale.detach().float().exp())
        bias = getattr(model, "logit_bias", None)
        self.logit_bias = None if bias is None else float(bias.detach())
        self.modules = {"open_clip": model.eval()}
        self._model, self._tokenizer = model, tokenizer
        side = model.visual.image_size
        self.preprocess = OpenCLIPPreprocess(repr(preprocess), side if isinstance(side, int) else min(side), preprocess)
        self.dim = self.text_features(["x"]).shape[1]

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return next(self._model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in."""
        return next(self._model.parameters()).dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Changes its device and dtype."""
        self._model.to(device, dtype)
        return self

    def read_at_length(self, long_text: str) -> None:
        """Only cutting is supported.

        Raises:
            UserError: another way is asked for.
        """
        if long_text != "truncate":
            raise UserError(f"{self.name} cuts long texts; omit --long-text")

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim)."""
        return unit(self._model.encode_text(self._tokenizer(list(texts)).to(self.device)))

    @torch.no_grad()
    def picture_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Unit vectors, float32 (pictures, dim)."""
        return unit(self._model.encode_image(inputs[PIXELS].to(self.dtype)))

    def probability(self, scores: Tensor) -> Tensor:
        """See `probability_of`."""
        return probability_of(scores, self.logit_scale, self.logit_bias)

    def fingerprint(self) -> str:
        """A hash of weights and preprocessing."""
        digest = hashlib.blake2b(fingerprint_of("open_clip", self._model.state_dict().items()), digest_size=16)
        digest.update(f"{self.preprocess.description} {type(self._tokenizer)}".encode())
        return digest.hexdigest()


def load(name: str, spec: str, device: torch.device, dtype: torch.dtype) -> OpenCLIPJudge:
    """Loads an open_clip model.

    Args:
        name: to show.
        spec: "ARCHITECTURE@WEIGHTS", with open_clip's name and a tag or file; or "hf-hub:OWNER/NAME".
        device: to load it to.
        dtype: of the weights, and to compute in.

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
    return OpenCLIPJudge(name, model.to(device, dtype), preprocess, tokenizer)
