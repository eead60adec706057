"""Tiny random checkpoints in the published layouts of other models."""

import json
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = {**TOWER, "image_size": 32, "patch_size": 8}


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(emoji_m18_folder() / "teacher")


def clip_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def bert_tokenizer(folder: Path) -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz蓝色背景上的猫"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return BertTokenizer.from_pretrained(folder)


def write_clip(folder: Path) -> Path:
    """OpenAI CLIP's layout."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    text = {**TOWER, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(text_config=text, vision_config=EYES, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    clip_processor().save_pretrained(folder)
    return folder


def write_chinese_clip(folder: Path, width: int = 32) -> Path:
    """Chinese-CLIP's layout."""
    torch.manual_seed(0)
    tokenizer = bert_tokenizer(folder)
    text = {**TOWER, "hidden_size": width, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
    config = ChineseCLIPConfig(text_config=text, vision_config={**EYES, "hidden_size": width}, projection_dim=24)
    ChineseCLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    clip_processor().save_pretrained(folder)
    return folder


def write_siglip(folder: Path, naflex: bool) -> Path:
    """SigLIP's layout, or SigLIP 2's of any size of picture."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")
    tokenizer.model_max_length = 16
    text = {**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 32}
    if naflex:
        eyes = {**TOWER, "patch_size": 8, "num_patches": 16}
        Siglip2Model(Siglip2Config(text_config=text, vision_config=eyes)).save_pretrained(folder)
        Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    else:
        SiglipModel(SiglipConfig(text_config=text, vision_config=EYES)).save_pretrained(folder)
        SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_open_clip(folder: Path) -> str:
    """A name of a model of open_clip, with random weights."""
    import open_clip

    torch.manual_seed(0)
    model, _, _ = open_clip.create_model_and_transforms("ViT-S-32-alt", pretrained=None)
    folder.mkdir()
    torch.save(model.state_dict(), folder / "weights.pt")
    return f"open_clip:ViT-S-32-alt@{folder / 'weights.pt'}"


def write_image_reward(folder: Path, width: int = 32, patch: int = 8, layers: int = 2) -> Path:
    """ImageReward's layout: the names of BLIP's own code."""
    torch.manual_seed(0)
    tokenizer = bert_tokenizer(folder)

    def linear(name: str, read: int, given: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.randn(given, read) / read**0.5, f"{name}.bias": 0.1 * torch.randn(given)}

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}

    eyes, reader = "blip.visual_encoder", "blip.text_encoder"
    weights = {
        f"{eyes}.cls_token": torch.randn(1, 1, width),
        f"{eyes}.pos_embed": torch.randn(1, 17, width),
        f"{eyes}.patch_embed.proj.weight": 0.1 * torch.randn(width, 3, patch, patch),
        f"{eyes}.patch_embed.proj.bias": torch.randn(width),
        f"{reader}.embeddings.position_ids": torch.arange(64)[None],
        f"{reader}.embeddings.word_embeddings.weight": torch.randn(len(tokenizer) + 2, width),
        f"{reader}.embeddings.position_embeddings.weight": torch.randn(64, width),
        **norm(f"{eyes}.norm"),
        **norm(f"{reader}.embeddings.LayerNorm"),
        **linear("blip.vision_proj", width, 8),
    }
    for layer in range(layers):
        block = f"{eyes}.blocks.{layer}"
        weights |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        weights |= linear(f"{block}.attn.qkv", width, 3 * width) | linear(f"{block}.attn.proj", width, width)
        weights |= linear(f"{block}.mlp.fc1", width, 64) | linear(f"{block}.mlp.fc2", 64, width)
        block = f"{reader}.encoder.layer.{layer}"
        for attention in ("attention", "crossattention"):
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                weights |= linear(f"{block}.{attention}.{part}", width, width)
            weights |= norm(f"{block}.{attention}.output.LayerNorm")
        weights |= linear(f"{block}.intermediate.dense", width, 64) | linear(f"{block}.output.dense", 64, width)
        weights |= norm(f"{block}.output.LayerNorm")
    for place, (read, given) in {0: (width, 16), 2: (16, 8), 4: (8, 8), 6: (8, 4), 7: (4, 1)}.items():
        weights |= linear(f"mlp.layers.{place}", read, given)
    torch.save(weights, folder / "ImageReward.pt")
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": width,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": layers,
        "pad_token_id": 0,
        "vocab_size": len(tokenizer) + 2,
        "encoder_width": width,
        "add_cross_attention": True,
    }
    (folder / "med_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
