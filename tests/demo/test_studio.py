"""Drawing, ranking and restoring, without the page around them."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.cli import main
from altdiffusion_clip.demo.studio import Drawn, Progress, Studio, best_first, compare, restored, write_all
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.errors import UserError


@pytest.fixture(scope="module")
def studio() -> Studio:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipe.set_progress_bar_config(disable=True)
    return Studio(pipe, AltCLIPScorer.from_pipeline(pipe), "emoji-m9")


def draw(studio: Studio, count: int = 2, **more: object) -> list[Progress | Drawn | None]:
    settings = studio.settings("蓝色背景上的猫", 3, num_inference_steps=6, guidance_scale=3.0, **more)
    return list(studio.draw(settings, count))


def test_each_step_is_told_and_some_are_shown(studio: Studio) -> None:
    events = draw(studio)
    steps = [(event.number, event.step) for event in events if isinstance(event, Progress)]
    assert steps == [(number, step) for number in (1, 2) for step in range(1, 7)]
    previews = [event.preview for event in events if isinstance(event, Progress) and event.preview]
    assert len(previews) == 10
    assert all(preview.size == (64, 64) for preview in previews)
    drawn = [event for event in events if isinstance(event, Drawn)]
    assert [each.settings.seed for each in drawn] == [3, 4]


def test_pictures_are_what_generate_draws_again(studio: Studio, tmp_path: Path) -> None:
    drawn = [event for event in draw(studio) if isinstance(event, Drawn)]
    (first, _), _ = write_all(drawn, tmp_path)
    assert main(["generate", "--from-png", str(first), "--output", str(tmp_path / "again")]) == 0
    again = Image.open(tmp_path / "again" / "000-seed3.png")
    np.testing.assert_array_equal(np.asarray(again), np.asarray(drawn[0].image))
    assert restored(first) == drawn[0].settings


def test_closing_stops_the_drawing(studio: Studio) -> None:
    steps = []
    hook = studio.pipeline.unet.register_forward_pre_hook(lambda module, given: steps.append(1))
    settings = studio.settings("猫", 0, num_inference_steps=40)
    events = studio.draw(settings, 4)
    for _ in range(3):
        next(events)
    events.close()
    hook.remove()
    assert len(steps) < 40
    assert len(draw(studio, 1)) == 7, "and the next one is drawn whole"


def test_an_error_is_raised_where_the_drawing_is_read(studio: Studio) -> None:
    settings = studio.settings("猫", 0, num_inference_steps=0)
    with pytest.raises(Exception, match=r"step|zero"):
        list(studio.draw(settings, 1))
    assert len(draw(studio, 1)) == 7


def test_the_best_first_and_all_in_a_zip(studio: Studio, tmp_path: Path) -> None:
    drawn = [event for event in draw(studio, 4) if isinstance(event, Drawn)]
    best = best_first(drawn, 3)
    assert [each.cosine for each in best] == sorted((each.cosine for each in drawn), reverse=True)[:3]
    paths, archive = write_all(best, tmp_path)
    with zipfile.ZipFile(archive) as file:
        rows = json.loads(file.read("results.json"))
        assert sorted(file.namelist()) == sorted([*(path.name for path in paths), "results.json"])
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["settings"]["prompt"] == "蓝色背景上的猫"


def test_pictures_against_prompts(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    pictures = {name: held_out_pictures()[place].path for name, place in (("cat", 2), ("dog", 4))}
    found = compare(studio.scorer, ["一只狗", "a cat"], [*pictures.values(), tmp_path / "empty.png"])
    assert found.names == [pictures["dog"].name, pictures["cat"].name]
    assert found.cosines[0, 0] > found.cosines[1, 0]
    assert found.cosines[1, 1] > found.cosines[0, 1]
    assert found.broken == ["empty.png: an empty file"]
    assert found.as_csv().splitlines()[0] == "picture (cosine),一只狗,a cat"


def test_a_picture_of_others_has_no_settings() -> None:
    with pytest.raises(UserError, match="no_settings"):
        restored(held_out_pictures()[0].path)
