"""The distance to the nearest true render: nothing for a true one, and what is missing otherwise."""

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip.emoji.architectures import new_vae
from altdiffusion_clip.emoji.concepts import find_concept, find_ground
from altdiffusion_clip.emoji.distance import Distance, distance_to_renders, summary
from altdiffusion_clip.emoji.scenes import KINDS, Scene, draw_scenes


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return new_vae().eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_true_render_is_its_own_nearest(kind: str, vae) -> None:
    for scene in draw_scenes(3, seed=6, shares={kind: 1.0}):
        found = distance_to_renders(scene.render(), scene, vae)
        assert found.psnr > 90
        np.testing.assert_array_equal(found.nearest.render(), scene.render())  # a sunset is its own mirror image


def test_noise_of_a_known_size_is_measured(vae) -> None:
    scene = Scene("one", (find_concept("cat"),), find_ground("grey"), arrangement=2)
    noise = np.random.default_rng(0).normal(0, 12.75, (128, 128, 3))
    noisy = Image.fromarray((np.asarray(scene.render()) + noise).clip(0, 255).astype(np.uint8))
    assert distance_to_renders(noisy, scene, vae).psnr == pytest.approx(26.0, abs=0.5)


def test_another_thing_is_far_away(vae) -> None:
    cat, dog = (Scene("one", (find_concept(name),), find_ground("blue")) for name in ("cat", "dog"))
    assert distance_to_renders(dog.render(), cat, vae).psnr < 20


def test_medians_and_the_worst_tenth() -> None:
    scene = Scene("one", (find_concept("cat"),), find_ground("blue"))
    figures = summary([Distance(30.0 - gap, scene, 30.0) for gap in range(11)])
    assert figures == {"psnr": 25.0, "autoencoder": 30.0, "gap": 5.0, "gap_worst_tenth": 9.0}
