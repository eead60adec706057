"""Drawing and scoring on an accelerator: what the CPU gives. Run by test_placement.py, in a process of its own."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.accelerators import simulated

if torch.cuda.is_available():
    DEVICE, NEAR = "cuda", 0.05  # its convolutions round to TF32
else:
    simulated.use()
    DEVICE, NEAR = simulated.NAME, 1e-4

import numpy as np
from diffusers import ControlNetModel
from PIL import Image

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionControlNetPipeline,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.evaluation.ranks import TIES, ranks_of_embeddings
from altdiffusion_clip.schedulers import SCHEDULERS, scheduler_like

TEXTS = ["猫", "a dog"]
PICTURES = [str(picture.path) for picture in held_out_pictures()[:8]]


def emoji(**options: object) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9", **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def on_cpu() -> AltDiffusionPipeline:
    return emoji()


@pytest.fixture(scope="module")
def there() -> AltDiffusionPipeline:
    return emoji().to(DEVICE)


@pytest.fixture(scope="module")
def expected(on_cpu: AltDiffusionPipeline) -> torch.Tensor:
    return AltCLIPScorer.from_pipeline(on_cpu).similarity(TEXTS, PICTURES)


def draw(pipe: Any, **more: object) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    settings = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "np", **more}
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
        pictures.append(draw(pipe, num_inference_steps=4))
    np.testing.assert_allclose(*pictures, atol=NEAR)


@pytest.mark.parametrize("kind", ["img2img", "inpaint", "controlnet"])
def test_every_pipeline(kind: str, on_cpu: AltDiffusionPipeline) -> None:
    picture, mask = Image.open(PICTURES[0]).convert("RGB").resize((64, 64)), Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
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


@pytest.mark.parametrize("kept", ["word embeddings", "models", "layers"])
def test_drawing_with_weights_kept_on_the_cpu(kept: str, on_cpu: AltDiffusionPipeline) -> None:
    pipe = emoji(offload_embeddings=kept == "word embeddings")
    {
        "word embeddings": lambda: pipe.to(DEVICE),
        "models": lambda: pipe.enable_model_cpu_offload(device=DEVICE),
        "layers": lambda: pipe.enable_sequential_cpu_offload(device=DEVICE),
    }[kept]()
    np.testing.assert_allclose(draw(pipe), draw(on_cpu), atol=NEAR)


def test_scores(there: AltDiffusionPipeline, expected: torch.Tensor) -> None:
    scorer = AltCLIPScorer.from_pipeline(there)
    assert scorer.device.type == DEVICE
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    assert scorer.rank("猫", PICTURES)[0].index == int(expected[0].argmax())
    alone = AltCLIPScorer.from_pretrained("emoji-m9/scorer").to(DEVICE)
    torch.testing.assert_close(alone.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize(
    "move",
    [
        lambda pipe: pipe.to(DEVICE),
        lambda pipe: pipe.enable_model_cpu_offload(device=DEVICE),
        lambda pipe: pipe.enable_sequential_cpu_offload(device=DEVICE),
    ],
    ids=["to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"],
)
def test_a_scorer_follows_its_pipeline(move: Callable[[Any], object], expected: torch.Tensor) -> None:
    pipe = emoji()
    scorer = AltCLIPScorer.from_pipeline(pipe)
    move(pipe)
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    assert scorer.device.type == scorer.vision_model.device.type == DEVICE
    assert len(pipe.best_of("猫", n=1, scorer=scorer, num_inference_steps=2).images) == 1


def test_a_scorer_of_an_offloaded_pipeline(expected: torch.Tensor) -> None:
    pipe = emoji()
    pipe.enable_model_cpu_offload(device=DEVICE)
    scorer = AltCLIPScorer.from_pipeline(pipe)
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    pipe = emoji()
    pipe.enable_sequential_cpu_offload(device=DEVICE)
    with pytest.raises(ValueError, match="before enable_sequential_cpu_offload"):
        AltCLIPScorer.from_pipeline(pipe)


def test_best_of_there_and_back(on_cpu: AltDiffusionPipeline) -> None:
    settings = {"n": 3, "num_inference_steps": 4, "guidance_scale": 3.0, "strategy": "halving"}
    expected = on_cpu.best_of("蓝色背景上的猫", **settings)
    pipe = emoji()
    for device in ("cpu", DEVICE, "cpu"):
        best = pipe.to(device).best_of("蓝色背景上的猫", **settings)
        assert best.seeds == expected.seeds
        assert best.cosine == pytest.approx(expected.cosine, abs=NEAR)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(number), "image": image, "text": TEXTS[0]} for number, image in enumerate(PICTURES)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, device in (("there", DEVICE), ("both", f"{DEVICE},cpu"), ("cpu", "cpu")):
        arguments = ["--batch-size", "3", "--workers", "0", "--dtype", "float32", "--device", device]
        assert main(["score", str(source), "--output", str(tmp_path / name), *arguments]) == 0
    there, both, cpu = ([row.cosine for row in read_shards(tmp_path / name)] for name in ("there", "both", "cpu"))
    assert there == pytest.approx(cpu, abs=NEAR)
    assert both == pytest.approx(cpu, abs=NEAR)
    assert main(["rerank", "猫", *PICTURES, "--device", DEVICE]) == 0
    drawing = ["--num-images", "2", "--steps", "2", "--output", str(tmp_path / "drawn"), "--device", DEVICE]
    assert main(["generate", "一只猫", *drawing]) == 0
    assert len(list((tmp_path / "drawn").glob("*-seed*.png"))) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("ties", TIES)
def test_ranks_are_computed_where_the_vectors_are(ties: str) -> None:
    torch.manual_seed(0)
    # Few values, so that there are ties.
    texts, images = (torch.nn.functional.normalize(torch.randint(-1, 2, (n, 4)) + 0.1, dim=-1) for n in (50, 30))
    pairs = np.stack([np.arange(50), np.arange(50) % 30], 1)
    expected = ranks_of_embeddings(texts, images, pairs, ties=ties)
    ranks = ranks_of_embeddings(texts.to(DEVICE), images.to(DEVICE), pairs, ties=ties)
    np.testing.assert_array_equal(ranks.of_texts, expected.of_texts)
    np.testing.assert_array_equal(ranks.of_images, expected.of_images)
