"""What the pipelines do to pictures that mean something: emoji-m18's, seen by the recogniser and by their colours."""

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionInpaintPipeline, AltDiffusionPipeline
from altdiffusion_clip.demo.draw_tab import EXAMPLES
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale
from altdiffusion_clip.emoji import Scene, find_concept, find_ground
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.emoji.vocabulary import read
from tests.conftest import in_full

SEEDS = range(2)


@pytest.fixture(scope="module")
def pipe() -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained("emoji-m18")


@pytest.fixture(scope="module")
def apple() -> Image.Image:
    return Scene("one", (find_concept("apple"),), find_ground("white"), 1).render()


def draw(pipe: AltDiffusionPipeline, prompt: str, **more: object) -> list[Image.Image]:
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    settings = {"num_images_per_prompt": len(SEEDS), "guidance_scale": 2.0, "generator": generators}
    return pipe(prompt, **{"num_inference_steps": 15, **settings, **more}).images


def foreground(image: Image.Image) -> np.ndarray:
    """Where a picture differs from the colour of its corners."""
    pixels = np.asarray(image).astype(float)
    corners = np.concatenate([pixels[y : y + 6, x : x + 6].reshape(-1, 3) for y in (0, 122) for x in (0, 122)])
    return np.abs(pixels - np.median(corners, axis=0)).sum(-1) > 60


def test_an_apple_becomes_an_orange_in_its_place(pipe: AltDiffusionPipeline, apple: Image.Image) -> None:
    assert recognise(apple).things[0].names["en"] == "apple"
    redraw = AltDiffusionImg2ImgPipeline.from_pipe(pipe)
    pictures = draw(redraw, "橙子", image=apple, strength=0.6)
    assert [recognise(picture).things[0].names["zh"] for picture in pictures] == ["橙子"] * len(SEEDS)
    before = foreground(apple)
    for picture in pictures:
        after = foreground(picture)
        assert (before & after).sum() / (before | after).sum() > 0.75
        green_before, green_after = (np.asarray(each)[before & after, 1].mean() for each in (apple, picture))
        assert green_after > green_before + 20, "orange has more green in it than red"


def test_inpainting_replaces_only_the_masked_half(pipe: AltDiffusionPipeline, apple: Image.Image) -> None:
    inpaint = AltDiffusionInpaintPipeline.from_pipe(pipe)
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    size = {"height": 128, "width": 128}
    pictures = draw(inpaint, "橙子", image=apple, mask_image=Image.fromarray(mask), strength=1.0, **size)
    original = np.asarray(apple).astype(int)
    for picture in pictures:
        whole = inpaint.image_processor.apply_overlay(Image.fromarray(mask), apple, picture)
        difference = np.abs(np.asarray(whole.convert("RGB")).astype(int) - original)
        assert difference[:, :64].max() <= 2
        assert difference[:, 64:].mean() > 10


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
        prompt = f"a strawberry on a ({en}:{weight}) background" if language == "en" else f"({zh}:{weight})背景上的草莓"
        pixels = np.stack([np.asarray(image) for image in draw(pipe, prompt)]).astype(float)
        corners = np.concatenate([pixels[:, :6, :6].reshape(-1, 3), pixels[:, :6, -6:].reshape(-1, 3)]).mean(0)
        return corners[channel] - np.delete(corners, channel).mean()

    less, plain, more = (strength_of_colour(weight) for weight in (0.5, 1.0, 1.5))
    assert less < plain < more


@pytest.mark.parametrize("prompt", [*EXAMPLES[:2], *in_full(*EXAMPLES[2:])])
def test_the_demos_examples_are_drawn_well(prompt: str, pipe: AltDiffusionPipeline) -> None:
    """By the recogniser, which compares with true renders alone; the first picture of each."""
    settings = Settings(prompt, 0, (0,), "emoji-m18", guidance_scale=usual_guidance_scale("emoji-m18"))
    (picture,) = draw_batch(pipe, settings)
    found, asked = recognise(picture), read(prompt)
    assert (found.things, (found.ground,)) == (asked.things, asked.grounds)
