"""torchao's int8 weights, through transformers' and diffusers' own arguments."""

from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from tests.pictures import held_out_pictures

torchao = pytest.importorskip("torchao", reason="torchao is no dependency; install it to run this")


@pytest.fixture(scope="module")
def pictures() -> list[Path]:
    return [picture.path for picture in held_out_pictures()[:8]]


def test_a_scorer(pictures: list[Path]) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    plain = AltCLIPScorer.from_pretrained("emoji-m18")
    quantized = AltCLIPScorer.from_pretrained("emoji-m18", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
    weight = quantized.text_model.roberta.encoder.layer[0].attention.self.query.weight
    assert isinstance(weight, torchao.quantization.Int8Tensor)
    difference = quantized.similarity("猫", pictures) - plain.similarity("猫", pictures)
    assert 0 < difference.abs().max() < 0.01


def test_a_pipeline() -> None:
    from diffusers import PipelineQuantizationConfig
    from diffusers import TorchAoConfig as DiffusersTorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    mapping = {
        "unet": DiffusersTorchAoConfig(Int8WeightOnlyConfig()),
        "text_encoder": TorchAoConfig(Int8WeightOnlyConfig()),
    }
    config = PipelineQuantizationConfig(quant_mapping=mapping)
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18", quantization_config=config, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    weight = pipe.text_encoder.roberta.encoder.layer[0].attention.self.query.weight
    assert isinstance(weight, torchao.quantization.Int8Tensor)
    assert pipe("蓝色背景上的猫", num_inference_steps=2).images[0].size == (64, 64)
