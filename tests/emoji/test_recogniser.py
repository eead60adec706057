"""What a picture shows, by the nearest of all renders."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from altdiffusion_clip.emoji.concepts import find_concept, find_ground
from altdiffusion_clip.emoji.recogniser import is_right, recognise
from altdiffusion_clip.emoji.scenes import KINDS, Scene, draw_scenes
from tests.conftest import FULL


@pytest.mark.parametrize("kind", KINDS)
def test_renders_are_recognised_though_soft_and_noisy(kind: str) -> None:
    generator = np.random.default_rng(0)
    for scene in draw_scenes(12 if FULL else 1, seed=9, shares={kind: 1.0}, unseen=True):
        soft = np.asarray(scene.render().filter(ImageFilter.GaussianBlur(2)), float)
        noisy = Image.fromarray((soft + generator.normal(0, 15, soft.shape)).clip(0, 255).astype(np.uint8))
        assert is_right(recognise(noisy), scene)


def test_sides_are_told_apart() -> None:
    cat, dog = find_concept("cat"), find_concept("dog")
    asked, swapped = (Scene("beside", pair, find_ground("blue")) for pair in ((cat, dog), (dog, cat)))
    assert not is_right(recognise(swapped.render()), asked)


@pytest.mark.parametrize(
    "other",
    [
        Scene("two", (find_concept("cat"),), find_ground("blue")),
        Scene("small", (find_concept("cat"),), find_ground("blue")),
        Scene("one", (find_concept("cat"),), find_ground("sea")),
        Scene("one", (find_concept("lion"),), find_ground("blue")),
    ],
    ids=["another count", "another size", "another ground", "another thing"],
)
def test_anything_else_is_wrong(other: Scene) -> None:
    assert not is_right(recognise(other.render()), Scene("one", (find_concept("cat"),), find_ground("blue")))
