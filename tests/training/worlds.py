"""A small real world for every stage: models of a few thousand parameters, sentences and pictures of emoji."""

import json
import shutil
from pathlib import Path

from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, XLMRobertaTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import concepts
from altdiffusion_clip.text_encoder import RobertaSeriesConfig
from tests.conftest import PUBLISHED
from tests.pictures import held_out_pictures

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGES = ("en", "zh", "ru")
CONCEPTS = 8
PIPELINE = PUBLISHED / "alt-diffusion-m9-tiny"


def write_teacher(folder: Path, width: int = 32) -> Path:
    """A CLIP with new weights and emoji-m18's English tokenizer."""
    import torch

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(emoji_m18_folder() / "teacher")
    text = {**TOWER, "hidden_size": width, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text["pad_token_id"] = tokenizer.pad_token_id
    config = CLIPConfig(text_config=text, vision_config={**TOWER, "image_size": 16, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": 16, "width": 16}
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=side).save_pretrained(folder)
    return folder


def write_student(folder: Path, width: int = 32, pre_transformation: bool = False) -> Path:
    """A student that is not there yet: a configuration, and emoji-m18's tokenizer."""
    shutil.copytree(emoji_m18_folder() / "tokenizer", folder)
    vocab_size = len(XLMRobertaTokenizer.from_pretrained(folder))
    config = {**TOWER, "vocab_size": vocab_size, "max_position_embeddings": 90, "project_dim": width}
    RobertaSeriesConfig(**config, has_pre_transformation=pre_transformation).save_pretrained(folder)
    return folder


def write_parallel(path: Path, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """What can be said of a few concepts, a meaning a line."""
    lines = [
        json.dumps({code: captions(concept, None, code)[:3] for code in languages}, ensure_ascii=False)
        for concept in concepts()[:CONCEPTS]
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_pictures(folder: Path, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """A few renders, with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = [picture for picture in held_out_pictures() if picture.concept.index < CONCEPTS]
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
        for number, picture in enumerate(shown):
            shutil.copyfile(picture.path, folder / f"{number}.png")
            said = {code: captions(picture.concept, picture.colour, code)[:2] for code in languages}
            file.write(json.dumps({"image": f"{number}.png", "captions": said}, ensure_ascii=False) + "\n")
    return folder
