"""Drawing on an accelerator: what the CPU draws. Run by test_placement.py."""

# isort: off
from tests.accelerators.device import DEVICE, NEAR

# isort: on
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from altdiffusion_clip import (
    AltDiffusionControlNetPipeline,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from altdiffusion_clip.demo.source import Source
from altdiffusion_clip.demo.studio import Drawn, Progress, Studio, variations
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.schedulers import SCHEDULERS, scheduler_like
from tests.pictures import held_out_pictures


def picture_and_mask() -> tuple[Image.Image, Image.Image]:
    picture, mask = Image.open(held_out_pictures()[0].path).convert("RGB").resize((64, 64)), Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    return picture, mask


def emoji(**options: object) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18", **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def on_cpu() -> AltDiffusionPipeline:
    return emoji()


@pytest.fixture(scope="module")
def there() -> AltDiffusionPipeline:
    return emoji().to(DEVICE)


def draw(pipe: Any, **more: object) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    settings = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np", **more}
    prompts, negative = ["(红色:1.3)背景上的猫", "a dog"], ["собака"] * 2
    return pipe(prompts, negative_prompt=negative, generator=generators, **settings).images


def test_tensors_of_two_devices_do_not_mix() -> None:
    there = torch.ones(3, device=DEVICE)
    assert there.device.type == DEVICE
    assert (there + 1).sum().item() == 6
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler(name: str, on_cpu: AltDiffusionPipeline, there: AltDiffusionPipeline) -> None:
    pictures = []
    for parts in (on_cpu.components, there.components):
        pipe = AltDiffusionPipeline(**parts)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = scheduler_like(on_cpu.scheduler, name)
        pictures.append(draw(pipe, num_inference_steps=4 if name == "pndm" else 2))
    np.testing.assert_allclose(*pictures, atol=NEAR)


@pytest.mark.parametrize("kind", ["img2img", "inpaint", "controlnet"])
def test_every_pipeline(kind: str, on_cpu: AltDiffusionPipeline) -> None:
    picture, mask = picture_and_mask()
    torch.manual_seed(0)
    controlnet = ControlNetModel.from_unet(on_cpu.unet, conditioning_embedding_out_channels=(16, 32, 32))

    def make(pipe: AltDiffusionPipeline) -> tuple[Any, dict[str, object]]:
        same = {**pipe.components, "requires_safety_checker": False}
        kinds: dict[str, Callable[[], tuple[Any, dict[str, object]]]] = {
            "img2img": lambda: (AltDiffusionImg2ImgPipeline(**same), {"image": [picture] * 2, "strength": 0.8}),
            "inpaint": lambda: (
                AltDiffusionInpaintPipeline(**same),
                {"image": [picture] * 2, "mask_image": [mask] * 2, "height": 64, "width": 64},
            ),
            "controlnet": lambda: (
                AltDiffusionControlNetPipeline(controlnet=copy.deepcopy(controlnet), **same),
                {"image": [picture] * 2},
            ),
        }
        return kinds[kind]()

    pictures = []
    for device, base in (("cpu", on_cpu), (DEVICE, emoji())):
        pipe, more = make(base)
        pipe.set_progress_bar_config(disable=True)
        pictures.append(draw(pipe.to(device), **more))
    np.testing.assert_allclose(*pictures, atol=NEAR)


def test_long_prompts(on_cpu: AltDiffusionPipeline, there: AltDiffusionPipeline) -> None:
    long = "，".join(["一只(红色:1.2)的猫", "蓝色背景"] * 20)
    pictures = []
    for parts in (on_cpu.components, there.components):
        pipe = AltDiffusionPipeline(**parts)
        pipe.set_progress_bar_config(disable=True)
        pipe.enable_long_prompts()
        generator = torch.Generator().manual_seed(0)
        pictures.append(pipe(long, generator=generator, num_inference_steps=3, output_type="np").images)
    np.testing.assert_allclose(*pictures, atol=NEAR)


def test_drawing_optimized_and_no_longer(on_cpu: AltDiffusionPipeline) -> None:
    pipe = emoji().to(DEVICE)
    done = pipe.optimize(half=False, compile=False)
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)
    done.undo()
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)


def test_optimized_with_models_kept_on_the_cpu(on_cpu: AltDiffusionPipeline) -> None:
    pipe = emoji()
    pipe.enable_model_cpu_offload(device=DEVICE)
    done = pipe.optimize(half=False, compile=False)
    assert any("channels last" in change for change in done.changes)
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)
    done.undo()
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)


@pytest.mark.parametrize("kept", ["models", "layers"])
def test_prompts_are_encoded_once_where_weights_come_and_go(kept: str) -> None:
    pipe, read = emoji(), []
    getattr(pipe, f"enable_{'model' if kept == 'models' else 'sequential'}_cpu_offload")(device=DEVICE)
    embeddings = pipe.text_encoder.roberta.embeddings
    embeddings.register_forward_pre_hook(lambda module, args: read.append(1))
    for _ in range(3):
        pipe("猫", num_inference_steps=1, output_type="np")
    assert len(read) == 2, "the prompt and the negative prompt"


@pytest.mark.parametrize("kept", ["word embeddings", "models", "layers"])
def test_drawing_with_weights_kept_on_the_cpu(kept: str, on_cpu: AltDiffusionPipeline) -> None:
    pipe = emoji(offload_embeddings=kept == "word embeddings")
    {
        "word embeddings": lambda: pipe.to(DEVICE),
        "models": lambda: pipe.enable_model_cpu_offload(device=DEVICE),
        "layers": lambda: pipe.enable_sequential_cpu_offload(device=DEVICE),
    }[kept]()
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)


@pytest.mark.parametrize("kind", ["drawn", "inpainted"])
def test_the_demo(kind: str) -> None:
    picture, mask = picture_and_mask()
    source = {"drawn": None, "inpainted": Source(picture, mask, 0.8)}[kind]
    pictures = []
    for device in ("cpu", DEVICE):
        pipe = emoji().to(device)
        studio = Studio(pipe, load_panel("emoji-m18", DEVICE, pipeline=pipe), "emoji-m18")
        events = list(studio.draw(variations(studio.settings("猫", 3, num_inference_steps=5), 1), source))
        assert any(event.preview for event in events if isinstance(event, Progress))
        (drawn,) = (event for event in events if isinstance(event, Drawn))
        pictures.append(np.asarray(drawn.image, np.float32) / 255)
        assert drawn.settings.device.startswith(device)
    np.testing.assert_allclose(*pictures, atol=NEAR + 1 / 255)
