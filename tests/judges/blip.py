"""ImageReward as its paper and BLIP's have it, in plain torch, on the published names of its weights.

Its authors' own package gave the same to 2e-6 on the checkpoint of these tests.
"""

import json
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BertTokenizer, CLIPImageProcessor

Weights = dict[str, Tensor]


def image_reward(folder: Path, texts: list[str], pictures: list[Image.Image], side: int = 32) -> Tensor:
    """Rewards of text i with picture i, float32 (pairs,)."""
    weights = torch.load(folder / "ImageReward.pt", weights_only=True)
    config = json.loads((folder / "med_config.json").read_text())
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    seen = _vision(weights, processor(pictures, return_tensors="pt").pixel_values)
    read = BertTokenizer.from_pretrained(folder)(
        texts, padding="max_length", max_length=35, truncation=True, return_tensors="pt"
    )
    first = _text(weights, config, read.input_ids, read.attention_mask, seen)[:, 0]
    for layer in (0, 2, 4, 6, 7):
        first = _linear(first, weights, f"mlp.layers.{layer}")
    return (first.squeeze(-1) - 0.16717362830052426) / 1.0333394966054072


def _vision(weights: Weights, pixels: Tensor) -> Tensor:
    own = {k.removeprefix("blip.visual_encoder."): v for k, v in weights.items() if "visual_encoder" in k}
    patches = own["patch_embed.proj.weight"]
    x = F.conv2d(pixels, patches, own["patch_embed.proj.bias"], patches.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([own["cls_token"].expand(len(x), -1, -1), x], 1) + own["pos_embed"]
    for layer in range(_count(own, "blocks.", 1)):
        block = f"blocks.{layer}"
        q, k, v = _linear(_norm(x, own, f"{block}.norm1", 1e-6), own, f"{block}.attn.qkv").chunk(3, -1)
        x = x + _linear(_attend(q, k, v, max(1, x.shape[-1] // 64)), own, f"{block}.attn.proj")
        y = F.gelu(_linear(_norm(x, own, f"{block}.norm2", 1e-6), own, f"{block}.mlp.fc1"))
        x = x + _linear(y, own, f"{block}.mlp.fc2")
    return _norm(x, own, "norm", 1e-6)


def _text(weights: Weights, config: dict[str, int], ids: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
    own = {k.removeprefix("blip.text_encoder."): v for k, v in weights.items() if "text_encoder" in k}
    x = own["embeddings.word_embeddings.weight"][ids]
    x = _norm(x + own["embeddings.position_embeddings.weight"][: ids.shape[1]], own, "embeddings.LayerNorm", 1e-12)
    for layer in range(_count(own, "encoder.layer.", 2)):
        block = f"encoder.layer.{layer}"
        for name, to, visible in (("attention", None, mask.bool()[:, None, None, :]), ("crossattention", seen, None)):
            source = x if to is None else to
            q = _linear(x, own, f"{block}.{name}.self.query")
            k, v = (_linear(source, own, f"{block}.{name}.self.{part}") for part in ("key", "value"))
            y = _linear(_attend(q, k, v, config["num_attention_heads"], visible), own, f"{block}.{name}.output.dense")
            x = _norm(x + y, own, f"{block}.{name}.output.LayerNorm", 1e-12)
        y = _linear(F.gelu(_linear(x, own, f"{block}.intermediate.dense")), own, f"{block}.output.dense")
        x = _norm(x + y, own, f"{block}.output.LayerNorm", 1e-12)
    return x


def _count(own: Weights, prefix: str, place: int) -> int:
    return len({name.split(".")[place] for name in own if name.startswith(prefix)})


def _linear(x: Tensor, own: Weights, name: str) -> Tensor:
    return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])


def _norm(x: Tensor, own: Weights, name: str, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"], eps)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, visible: Tensor | None = None) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if visible is not None:
        logits = logits.masked_fill(~visible, -torch.inf)
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
