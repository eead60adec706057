"""What the pipelines do to pictures that mean something: on emoji-m9, seen by a classifier and by measured colours."""

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionInpaintPipeline, AltDiffusionPipeline
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.recogniser import Recogniser
from tests.conftest import in_full

SEEDS = range(4)


@pytest.fixture(scope="module")
def pipe() -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained("emoji-m9")


@pytest.fixture(scope="module")
def red_apple() -> Image.Image:
    place = next(p.path for p in held_out_pictures() if p.concept.names["en"] == "red apple")
    return Image.open(place).convert("RGB")


def draw(pipe: AltDiffusionPipeline, prompt: str, **more: object) -> list[Image.Image]:
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    settings = {"num_images_per_prompt": len(SEEDS), "guidance_scale": 3.0, "generator": generators}
    return pipe(prompt, **{"num_inference_steps": 15, **settings, **more}).images


def foreground(image: Image.Image) -> np.ndarray:
    """Where a picture differs from the colour of its corners."""
    pixels = np.asarray(image).astype(float)
    corners = np.concatenate([pixels[y : y + 6, x : x + 6].reshape(-1, 3) for y in (0, 58) for x in (0, 58)])
    return np.abs(pixels - np.median(corners, axis=0)).sum(-1) > 60


def test_a_red_apple_becomes_a_green_one_in_its_place(pipe: AltDiffusionPipeline, red_apple: Image.Image) -> None:
    recogniser = Recogniser.load()
    assert recogniser.concepts_of([red_apple])[0].names["en"] == "red apple"
    redraw = AltDiffusionImg2ImgPipeline.from_pipe(pipe)
    pictures = draw(redraw, "青苹果", image=red_apple, strength=0.6)
    assert [concept.names["zh"] for concept in recogniser.concepts_of(pictures)] == ["青苹果"] * len(SEEDS)
    before = foreground(red_apple)
    for picture in pictures:
        after = foreground(picture)
        assert (before & after).sum() / (before | after).sum() > 0.75
        red, green, _ = np.asarray(picture).astype(float)[before & after].mean(0)
        assert green > red


def test_inpainting_replaces_only_the_masked_half(pipe: AltDiffusionPipeline, red_apple: Image.Image) -> None:
    inpaint = AltDiffusionInpaintPipeline.from_pipe(pipe)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    size = {"height": 64, "width": 64}
    pictures = draw(inpaint, "青苹果", image=red_apple, mask_image=Image.fromarray(mask), strength=1.0, **size)
    original = np.asarray(red_apple).astype(int)
    for picture in pictures:
        whole = inpaint.image_processor.apply_overlay(Image.fromarray(mask), red_apple, picture)
        difference = np.abs(np.asarray(whole.convert("RGB")).astype(int) - original)
        assert difference[:, :32].max() <= 2
        assert difference[:, 32:].mean() > 20


@pytest.mark.parametrize(
    ("channel", "en", "zh"),
    [
        (0, "red", "红色"),
        pytest.param(1, "green", "绿色", marks=pytest.mark.full),
        pytest.param(2, "blue", "蓝色", marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("language", ["zh", *in_full("en")])
def test_weights_move_the_colour_of_the_background(channel, en, zh, language, pipe: AltDiffusionPipeline) -> None:
    def strength_of_colour(weight: float) -> float:
        # "背景上的猫" alone is drawn on a red that no weight can redden. Behind a strawberry there is room for more.
        prompt = f"a strawberry on a ({en}:{weight}) background" if language == "en" else f"({zh}:{weight})背景上的草莓"
        pixels = np.stack([np.asarray(image) for image in draw(pipe, prompt)]).astype(float)
        corners = np.concatenate([pixels[:, :6, :6].reshape(-1, 3), pixels[:, :6, -6:].reshape(-1, 3)]).mean(0)
        return corners[channel] - np.delete(corners, channel).mean()

    less, plain, more = (strength_of_colour(weight) for weight in (0.5, 1.0, 1.5))
    assert less < plain < more
