"""Drawing and changing pictures, without the page around it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionInpaintPipeline, AltDiffusionPipeline
from altdiffusion_clip.cli import main
from altdiffusion_clip.demo.results import restored
from altdiffusion_clip.demo.source import Source
from altdiffusion_clip.demo.studio import Drawn, Lost, Progress, Studio, variations
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.images import load_image
from tests.conftest import in_full
from tests.pictures import held_out_pictures


def draw(studio: Studio, count: int = 2, source: Source | None = None, **more) -> list[Progress | Drawn | Lost]:
    settings = {"num_inference_steps": 6, "guidance_scale": 3.0, **more}
    first = studio.settings(settings.pop("prompt", "蓝色背景上的猫"), 3, **settings)
    return list(studio.draw(variations(first, count), source))


def pictures(events: list[Progress | Drawn | Lost]) -> list[Drawn]:
    return [event for event in events if isinstance(event, Drawn)]


def test_each_step_is_told_and_some_are_shown(studio: Studio) -> None:
    events = draw(studio)
    steps = [(event.number, event.step) for event in events if isinstance(event, Progress)]
    assert steps == [(number, step) for number in (1, 2) for step in range(1, 7)]
    previews = [event.preview for event in events if isinstance(event, Progress) and event.preview]
    assert len(previews) == 10
    assert all(preview.size == (64, 64) for preview in previews)
    assert [each.settings.seed for each in pictures(events)] == [3, 4]


def test_pictures_are_what_generate_draws_again(pipe: AltDiffusionPipeline, quick_model: Path, tmp_path: Path) -> None:
    studio = Studio(pipe, None, str(quick_model))
    drawn = pictures(draw(studio, width=96, height=32, scheduler="euler-a"))
    drawn[0].save(tmp_path / "first.png")
    assert main(["generate", "--from-png", str(tmp_path / "first.png"), "--output", str(tmp_path / "again")]) == 0
    again = Image.open(tmp_path / "again" / "000-seed3.png")
    assert again.size == (96, 32)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(drawn[0].image))
    assert restored(tmp_path / "first.png", str(quick_model)) == drawn[0].settings


def test_closing_the_iterator_stops_the_drawing(studio: Studio) -> None:
    steps = []
    hook = studio.pipeline.unet.register_forward_pre_hook(lambda module, given: steps.append(1))
    events = studio.draw(variations(studio.settings("猫", 0, num_inference_steps=40), 4))
    for _ in range(3):
        next(events)
    events.close()
    hook.remove()
    assert len(steps) < 40
    assert len(draw(studio, 1)) == 7, "and the next one is drawn whole"


def test_closing_the_studio_finishes_the_picture_in_hand(studio: Studio) -> None:
    events = studio.draw(variations(studio.settings("猫", 0, num_inference_steps=4), 4))
    next(events)
    studio.close()
    assert len(pictures(list(events))) == 1


def test_an_error_is_raised_where_the_drawing_is_read(studio: Studio) -> None:
    with pytest.raises(Exception, match=r"step|zero"):
        draw(studio, 1, num_inference_steps=0)
    assert len(draw(studio, 1)) == 7


def test_long_prompts_are_read_whole_or_refused(studio: Studio) -> None:
    assert studio.settings("a cat", 0).prompt_windows == 1
    long = studio.settings("a cat, " * 40, 0, num_inference_steps=1)
    assert long.prompt_windows == 2
    assert len(pictures(list(studio.draw([long])))) == 1
    with pytest.raises(Refusal, match=r"tokens, and \d+ can be read"):
        studio.settings("a cat, " * 200, 0)
    with pytest.raises(Refusal, match=r"tokens, and \d+ can be read"):
        studio.settings("a cat", 0, negative_prompt="dog " * 1000)


def test_a_picture_is_changed() -> None:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipe.set_progress_bar_config(disable=True)
    studio = Studio(pipe, None, "emoji-m18")
    source = Source(load_image(held_out_pictures()[2].path), None, 0.8)
    events = draw(studio, 2, source, prompt="苹果", num_inference_steps=20, strength=0.8)
    assert [event.steps for event in events if isinstance(event, Progress)] == [16] * 32
    assert [recognise(each.image).things[0].names["en"] for each in pictures(events)] == ["apple", "apple"]


def test_only_what_is_masked_is_changed(studio: Studio) -> None:
    image = load_image(held_out_pictures()[2].path).convert("RGB").resize((64, 64))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    (drawn,) = pictures(draw(studio, 1, Source(image, mask, 1.0), prompt="苹果", strength=1.0))
    before, after = np.asarray(image, int), np.asarray(drawn.image, int)
    assert (before[:, 32:] == after[:, 32:]).all()
    assert abs(before[:, :32] - after[:, :32]).mean() > 5


def test_inpainting_is_what_the_pipeline_paints(studio: Studio) -> None:
    image = load_image(held_out_pictures()[2].path).convert("RGB").resize((64, 64))
    mask = Image.new("L", (64, 64), 255)
    (drawn,) = pictures(draw(studio, 1, Source(image, mask, 0.9), strength=0.9))
    pipe = AltDiffusionInpaintPipeline.from_pipe(studio.pipeline)
    theirs = pipe(
        "蓝色背景上的猫",
        image=image,
        mask_image=mask,
        height=64,
        width=64,
        strength=0.9,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(3),
    ).images[0]
    np.testing.assert_array_equal(np.asarray(drawn.image), np.asarray(theirs))


@pytest.mark.parametrize("finds_everything", [True, *in_full(False)])
def test_what_a_safety_checker_finds_is_held_back(finds_everything: bool, published: Path) -> None:
    folder = published / "alt-diffusion-m9-tiny"  # as published, with a checker
    pipe = AltDiffusionPipeline.from_pretrained(folder)
    pipe.safety_checker.concept_embeds_weights.data.fill_(-10 if finds_everything else 10)
    pipe.safety_checker.special_care_embeds_weights.data.fill_(10)
    studio = Studio(pipe, None, str(folder))
    events = draw(studio, 2, num_inference_steps=1, height=64, width=64)
    finished = [event for event in events if not isinstance(event, Progress)]
    if finds_everything:
        assert [event.reason for event in finished if isinstance(event, Lost)] == ["held_back"] * 2
    else:
        assert [event.score for event in finished if isinstance(event, Drawn)] == [None, None]
    assert not any(event.preview for event in events if isinstance(event, Progress)), "nothing is shown unchecked"
