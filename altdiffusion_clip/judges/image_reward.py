"""ImageReward (arXiv 2304.05977): a BLIP that reads a text and a picture, and a head that predicts how people like it.

The layout is THUDM's: `ImageReward.pt`, the weights under the names of BLIP's own code, and `med_config.json`, the
configuration of its text encoder. The tokenizer is BERT's. It is loaded from the same folder if it is there, and
otherwise as their code does.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPImageProcessor,
    PreTrainedTokenizerBase,
)

from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.errors import CheckpointError, UserError
from altdiffusion_clip.judges.base import Inputs
from altdiffusion_clip.judges.dual import fingerprint_of, loaded, warn_of_cut
from altdiffusion_clip.judges.preprocessing import Normalise, TransformersPreprocess, stacked

CONFIG_FILE = "med_config.json"
TOKENIZER = "google-bert/bert-base-uncased"
MAX_LENGTH = 35
"""Tokens of a text."""
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Mean and deviation of the head's outputs on the authors' data, which scores are standardised with."""
HEAD_WIDTH = 64
"""The width of an attention head in BLIP's vision towers."""

_NAMES = (
    (r"^blip\.visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm", r"vision_model.encoder.layers.\1.layer_norm"),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^blip\.visual_encoder\.blocks\.", "vision_model.encoder.layers."),
    (r"^blip\.text_encoder\.", "text_model."),
    (r"^mlp\.layers\.", "head."),
)
"""Names in BLIP's own code and in transformers' classes."""


class ImageReward(nn.Module):
    """The model, based on transformers' BLIP.

    Args:
        vision: configuration of the vision tower.
        text: configuration of the text tower, which attends to the picture.
        head: widths of the head's linear layers by name, (output, input); there is nothing between them.
    """

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig, head: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.vision_model = BlipVisionModel(vision)
        self.text_model = BlipTextModel(text, add_pooling_layer=False)
        self.head = nn.Sequential(OrderedDict((name, nn.Linear(read, given)) for name, (given, read) in head.items()))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The reward of text i with picture i, float (pairs,)."""
        seen = self.vision_model(pixel_values).last_hidden_state
        read = self.text_model(
            input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        )
        return (self.head(read.last_hidden_state[:, 0]).float().squeeze(-1) - MEAN) / STD


class ImageRewardJudge:
    """Scores pairs with an `ImageReward`, in standard deviations from its authors' mean.

    Args:
        name: to show.
        model: the ImageReward.
        tokenizer: BERT's.
    """

    measure = "score"

    def __init__(self, name: str, model: ImageReward, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer
        side = model.vision_model.config.image_size
        processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        self.preprocess = TransformersPreprocess.of(processor)
        self._normalise = Normalise(self.preprocess)
        self._has_warned = False

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.model.vision_model.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it computes in."""
        return self.model.vision_model.dtype

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Changes its device and dtype."""
        self.model.to(device, dtype)
        return self

    @torch.no_grad()
    def pair_scores(self, texts: Sequence[str], pictures: Sequence[Inputs]) -> Tensor:
        """Scores of text i with picture i, float32 (pairs,), on the CPU. A text that is cut is named in a warning."""
        if not texts:
            return torch.empty(0)
        inputs = {key: value.to(self.device) for key, value in stacked(pictures).items()}
        read = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt", verbose=False
        ).to(self.device)
        if not self._has_warned:
            self._has_warned = warn_of_cut(self.name, self.tokenizer, texts, read.attention_mask, MAX_LENGTH)
        pixels = self._normalise(inputs, self.dtype)["pixel_values"]
        return self.model(pixels, read.input_ids, read.attention_mask).cpu()

    def probability(self, scores: Tensor) -> None:
        """None, because it was trained only to compare two pictures."""

    def fingerprint(self) -> str:
        """A hash of weights and tokenizer."""
        digest = hashlib.blake2b(fingerprint_of("image_reward", self.model.state_dict().items()), digest_size=16)
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()


def load(name: str, place: Path, device: torch.device, dtype: torch.dtype) -> ImageRewardJudge:
    """Loads an ImageReward.

    Args:
        name: to show.
        place: a folder with `med_config.json` and the weights.
        device: to load it to.
        dtype: of the weights, and to compute in.

    Raises:
        UserError: it cannot be loaded.
    """
    files = sorted(file for ending in ("*.safetensors", "*.bin", "*.pt") for file in place.glob(ending))
    if not files:
        raise UserError(f"{place} has no weights beside {CONFIG_FILE}; ImageReward's are in ImageReward.pt")
    try:
        tensors = dict(CheckpointTensors(files[0], rename=_renamed))
        model = _new_model(tensors, read_json(place / CONFIG_FILE))
        missing, _ = model.load_state_dict(tensors, strict=False)
    except (CheckpointError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{files[0]} is not an ImageReward: {str(error).splitlines()[0]}") from error
    if missing:
        raise UserError(f"{files[0]} is not a complete ImageReward: {missing[0]} is missing")
    has_tokenizer = any((place / file).is_file() for file in ("vocab.txt", "tokenizer.json"))
    tokenizer = loaded("a tokenizer", place if has_tokenizer else Path(TOKENIZER), BertTokenizer.from_pretrained)
    return ImageRewardJudge(name, model.to(device, dtype), tokenizer)


def _renamed(name: str) -> str | None:
    for pattern, replacement in _NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return None  # parts of BLIP's training that ImageReward does not use


def _new_model(tensors: Mapping[str, Tensor], text: dict[str, object]) -> ImageReward:
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    blocks = {name.split(".")[3] for name in tensors if name.startswith("vision_model.encoder.layers.")}
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=len(blocks),
        num_attention_heads=max(1, width // HEAD_WIDTH),
        image_size=patch * isqrt(tensors["vision_model.embeddings.position_embedding"].shape[1] - 1),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    known = BlipTextConfig().to_dict().keys()
    own = {key: value for key, value in text.items() if key in known and key not in ("model_type", "architectures")}
    layers = sorted(
        (name.split(".")[1] for name in tensors if name.startswith("head.") and name.endswith(".weight")), key=int
    )
    shapes = {layer: tensors[f"head.{layer}.weight"].shape for layer in layers}
    head = {layer: (shape[0], shape[1]) for layer, shape in shapes.items()}
    return ImageReward(vision, BlipTextConfig(**own, encoder_hidden_size=width), head)
