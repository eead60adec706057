"""Saved folders: they load again with a LoRA attached, and tell nothing of the machine."""

import logging
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from altdiffusion_clip import AltDiffusionPipeline


def draw(pipe: AltDiffusionPipeline) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    return torch.from_numpy(pipe("猫", generator=torch.Generator().manual_seed(0), **settings).images)


def test_with_loras_attached(published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None)
    base = draw(pipe)
    torch.manual_seed(0)
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["query"], init_lora_weights=False), "words")
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "style")
    styled = draw(pipe)
    assert (styled - base).abs().max() > 1e-3
    with caplog.at_level(logging.WARNING):
        pipe.save_pretrained(tmp_path)
    assert "without the LoRAs style, words" in caplog.text
    torch.testing.assert_close(draw(AltDiffusionPipeline.from_pretrained(tmp_path)), base)
    torch.testing.assert_close(draw(pipe), styled, msg="the LoRAs are on still")


def test_no_path_of_the_machine(published: Path, tmp_path: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
    pipe.save_pretrained(tmp_path)
    for path in tmp_path.rglob("*.json"):
        assert str(published) not in path.read_text(encoding="utf-8"), path


def test_a_hub_id_stays(published: Path, tmp_path: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
    pipe.unet.register_to_config(_name_or_path="BAAI/AltDiffusion-m9")
    pipe.save_pretrained(tmp_path)
    assert "BAAI/AltDiffusion-m9" in (tmp_path / "unet" / "config.json").read_text(encoding="utf-8")
