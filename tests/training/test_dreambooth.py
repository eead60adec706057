import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.configs import DreamBoothConfig
from altdiffusion_clip.training.dreambooth import dreambooth
from altdiffusion_clip.training.metrics import read_metrics
from tests.pictures import held_out_pictures
from tests.training.worlds import PIPELINE


@pytest.fixture
def config(tmp_path: Path) -> DreamBoothConfig:
    (tmp_path / "instance").mkdir()
    for picture in held_out_pictures()[:3]:
        shutil.copy(picture.path, tmp_path / "instance")
    return DreamBoothConfig(
        output=tmp_path / "run",
        model=str(PIPELINE),
        instance_images=tmp_path / "instance",
        instance_prompt="一只sks猫",
        resolution=32,
        steps=30,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=5,
        log_every=1,
    )


def test_the_whole_unet(config: DreamBoothConfig) -> None:
    folder = dreambooth(config)
    losses = [line["loss"] for line in read_metrics(config.output)]
    assert sum(losses[-8:]) < sum(losses[:8])
    assert AltDiffusionPipeline.from_pretrained(folder).unet is not None


def test_the_prior_is_drawn_once_and_weighed(config: DreamBoothConfig) -> None:
    settings = replace(config, class_prompt="一只猫", class_images=3, prior_weight=0.5, steps=3)
    dreambooth(settings)
    drawn = sorted((config.output / "class").glob("*.png"))
    assert len(drawn) == 3
    captions = (config.output / "data" / "captions.jsonl").read_text(encoding="utf-8")
    assert captions.count("sks") == 3
    assert captions.count("class") == 3

    from altdiffusion_clip.training.accelerators import new_accelerator
    from altdiffusion_clip.training.align import load_parts, prepare_pictures
    from altdiffusion_clip.training.diffusion import embed_latents
    from altdiffusion_clip.training.dreambooth import InstanceAndPrior

    parts, accelerator = load_parts(config.model), new_accelerator(config)
    pictures = prepare_pictures([config.output / "data" / "captions.jsonl"], settings, parts, accelerator)
    source = InstanceAndPrior(pictures, embed_latents(parts.vae, pictures), settings, parts)
    batch = source.load(source.draw(torch.Generator().manual_seed(0)))
    assert batch["weights"].tolist() == [1.0, 0.5, 1.0, 0.5]
    said = parts.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert said[0] == said[2] != said[1]

    # One picture a step is now of the instance, now of the class; and a blank behind the class's prompt is nothing.
    alone = InstanceAndPrior(
        pictures, embed_latents(parts.vae, pictures), replace(settings, batch_size=1, class_prompt="一只猫 "), parts
    )
    weights = {float(alone.load(alone.draw(torch.Generator().manual_seed(seed)))["weights"]) for seed in range(12)}
    assert weights == {1.0, 0.5}


@pytest.mark.parametrize("on_text", [False, True])
def test_as_a_lora(on_text: bool, config: DreamBoothConfig) -> None:
    folder = dreambooth(replace(config, rank=2, train_text_encoder=on_text, steps=3))
    pipe = AltDiffusionPipeline.from_pretrained(PIPELINE, safety_checker=None)
    pipe.load_lora_weights(str(folder))
    assert ("text_encoder" in pipe.get_list_adapters()) == on_text


def test_a_folder_without_pictures(config: DreamBoothConfig, tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="give --instance-images a folder with some"):
            dreambooth(replace(config, instance_images=place))
