from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionPipeline
from altdiffusion_clip.training.configs import LoraConfig
from altdiffusion_clip.training.lora import train_lora
from altdiffusion_clip.training.metrics import read_metrics
from tests.training.worlds import PIPELINE, write_pictures


@pytest.fixture
def config(tmp_path: Path) -> LoraConfig:
    return LoraConfig(
        output=tmp_path / "run",
        model=str(PIPELINE),
        data=[write_pictures(tmp_path / "pictures")],
        resolution=32,
        steps=30,
        batch_size=8,
        learning_rate=1e-2,
        warmup_steps=5,
        rank=4,
        log_every=1,
    )


@pytest.mark.parametrize("on_text", [False, True])
def test_it_trains_and_loads_by_name(on_text: bool, config: LoraConfig) -> None:
    folder = Path(str(train_lora(replace(config, train_text_encoder=on_text))))
    losses = [line["loss"] for line in read_metrics(config.output)]
    assert sum(losses[-8:]) < sum(losses[:8])
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "pytorch_lora_weights.safetensors"]
    assert (folder / "pytorch_lora_weights.safetensors").stat().st_size < 3_000_000
    for kind in (AltDiffusionPipeline, AltDiffusionImg2ImgPipeline):
        pipe = kind.from_pretrained(PIPELINE, safety_checker=None)
        pipe.load_lora_weights(folder)
        named = pipe.get_list_adapters()
        assert set(named) == ({"unet", "text_encoder"} if on_text else {"unet"})


def test_it_draws_as_it_did_in_training(config: LoraConfig) -> None:
    """The loaded LoRA is the trained one: its scale, its layers and its text encoder."""
    import torch

    from altdiffusion_clip.training.align import load_parts
    from altdiffusion_clip.training.lora import add_lora

    settings = replace(config, train_text_encoder=True, steps=10)
    folder = train_lora(settings)
    parts = load_parts(config.model)
    add_lora(parts, config.rank, True)
    saved = torch.load(config.output / "checkpoint.pt", weights_only=True)["module"]
    for name, module in (("unet", parts.unet), ("text_encoder", parts.text_encoder)):
        mine = {key.removeprefix(f"{name}."): value for key, value in saved.items() if key.startswith(f"{name}.")}
        assert mine
        assert not module.load_state_dict(mine, strict=False).unexpected_keys
    trained = parts.pipeline()
    loaded = AltDiffusionPipeline.from_pretrained(PIPELINE, safety_checker=None)
    plain = draw(loaded)
    loaded.load_lora_weights(folder)
    expected = draw(trained)
    np.testing.assert_allclose(draw(loaded), expected, atol=1e-4)
    assert np.abs(expected - plain).max() > 1e-3


def draw(pipe: AltDiffusionPipeline) -> np.ndarray:
    import torch

    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("猫", num_inference_steps=2, height=32, width=32, generator=generator, output_type="np").images[0]


def test_every_lora_of_m18s_text_encoder_gets_a_gradient(published: Path) -> None:
    """Its conditioning is of the layer before the last; several processes wait for gradients that never come."""
    import torch

    from altdiffusion_clip.training.align import load_parts
    from altdiffusion_clip.training.lora import add_lora

    parts = load_parts(str(published / "alt-diffusion-m18-tiny"))
    add_lora(parts, 2, True)
    encoder = parts.text_encoder
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    encoder(torch.tensor([[0, 5, 2]])).projection_state.square().sum().backward()
    assert trained
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.any()] == []
