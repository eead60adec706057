"""Judges with their own text tower and the vision tower of a CLIP: Taiyi and M-CLIP."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BertForSequenceClassification,
    CLIPModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.dual import DualEncoder, loaded, max_length_of

_LENGTH = 77


def load(name: str, text: Path, vision: Path, device: torch.device, dtype: torch.dtype) -> DualEncoder:
    """Combines a text tower with a CLIP's vision tower.

    Args:
        name: to show.
        text: the folder of Taiyi's or M-CLIP's text tower.
        vision: the folder of the CLIP that it was trained with.
        device: for both.
        dtype: of the weights, and to compute in.

    Raises:
        UserError: one of them cannot be loaded, or their widths differ.
    """
    config = read_json(text / "config.json")
    kind = str(config.get("model_type", "")).lower()
    tower: TaiyiText | MCLIPText
    if kind == "bert":
        tower = TaiyiText(loaded("Taiyi's text tower", text, BertForSequenceClassification.from_pretrained))
    elif kind in ("m-clip", "mclip") or "transformerDimensions" in config:
        tower = MCLIPText.from_folder(text)
    else:
        raise UserError(f"{text} is a {kind or 'model of no kind'}; a text tower alone is Taiyi's or M-CLIP's")
    # Loads the whole CLIP: the vision tower alone would need a projection width that few checkpoints state.
    eyes = loaded("a CLIP", vision, CLIPModel.from_pretrained, dtype=torch.float32)
    if tower.width != eyes.config.projection_dim:
        raise UserError(
            f"{text} has vectors of {tower.width} numbers and {vision} of {eyes.config.projection_dim}; "
            "take the CLIP that the text tower was taught with"
        )
    tower.to(device, dtype)
    del eyes.text_model, eyes.text_projection
    eyes.to(device, dtype)
    tokenizer = loaded("a tokenizer", text, AutoTokenizer.from_pretrained)
    return DualEncoder(
        name,
        {"text": tower, "vision": eyes},
        tower,
        lambda inputs: eyes.get_image_features(**inputs).pooler_output,
        tokenizer,
        loaded("an image processor", vision, AutoImageProcessor.from_pretrained),
        tower.width,
        max_length_of(tokenizer, min(tower.positions, _LENGTH)),
    )


class TaiyiText(nn.Module):
    """Taiyi-CLIP's text tower: a BERT whose "class logits" are the embedding (Fengshenbang, arXiv 2209.02970).

    Args:
        bert: as published.
    """

    def __init__(self, bert: BertForSequenceClassification) -> None:
        super().__init__()
        self.bert = bert
        self.width = int(bert.config.num_labels)
        self.positions = int(bert.config.max_position_embeddings)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors, float (texts, width). Padding is masked, so a vector does not depend on the batch."""
        return self.bert(input_ids=ids, attention_mask=mask).logits


class MCLIPText(nn.Module):
    """M-CLIP's text tower: the mean of XLM-R's states and a linear layer (Carlsson et al., LREC 2022).

    Args:
        transformer: XLM-R.
        width: of the vectors.
    """

    def __init__(self, transformer: XLMRobertaModel, width: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.LinearTransformation = nn.Linear(transformer.config.hidden_size, width)
        self.width = width
        self.positions = int(transformer.config.max_position_embeddings) - 2

    @classmethod
    def from_folder(cls, folder: Path) -> "MCLIPText":
        """Loads the published layout. Its config only names the base model, so sizes are taken from the tensors.

        Raises:
            UserError: it is not an XLM-R.
        """
        given = read_json(folder / "config.json")
        tensors = CheckpointTensors.in_folder(folder)
        prefix = "transformer."
        words = f"{prefix}embeddings.word_embeddings.weight"
        if words not in tensors or f"{prefix}encoder.layer.0.attention.self.query.weight" not in tensors:
            raise UserError(f"{folder} ({given.get('modelBase', 'of no base')}) is not an M-CLIP based on XLM-R")
        vocabulary, hidden = tensors.shape(words)
        config = XLMRobertaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=len(
                {name.split(".")[3] for name in tensors if name.startswith(f"{prefix}encoder.layer.")}
            ),
            # XLM-R's heads have a width of 64 in every size.
            num_attention_heads=given.get("num_attention_heads", hidden // 64),
            intermediate_size=tensors.shape(f"{prefix}encoder.layer.0.intermediate.dense.weight")[0],
            max_position_embeddings=tensors.shape(f"{prefix}embeddings.position_embeddings.weight")[0],
            type_vocab_size=tensors.shape(f"{prefix}embeddings.token_type_embeddings.weight")[0],
            layer_norm_eps=1e-5,
        )
        has_pooler = any(name.startswith(f"{prefix}pooler.") for name in tensors)
        tower = cls(
            XLMRobertaModel(config, add_pooling_layer=has_pooler), tensors.shape("LinearTransformation.weight")[0]
        )
        weights = {name: tensors[name].float() for name in tensors if not name.endswith("position_ids")}
        missing, unexpected = tower.load_state_dict(weights, strict=False)
        if missing or unexpected:
            raise UserError(f"{folder} is not a complete M-CLIP: {[*missing, *unexpected][0]} is missing or not known")
        return tower

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors, float (texts, width)."""
        states = self.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(2).to(states.dtype)
        return self.LinearTransformation((states * weight).sum(1) / weight.sum(1))
