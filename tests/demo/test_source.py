"""The picture that is changed, and where."""

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.demo.source import Source, fitted


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (64, 64)), ((4000, 4000), (64, 64)), ((100, 400), (32, 128)), ((5000, 10), (1424, 16))],
)
def test_the_models_area_in_the_pictures_proportions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    source = fitted(Image.new("RGB", size), [], 0.5, side=64, multiple=16)
    assert source.image.size == expected
    assert source.mask is None


def test_paint_of_all_layers_is_the_mask() -> None:
    layers = [Image.new("RGBA", (100, 100)) for _ in range(2)]
    layers[0].paste((255, 0, 0, 255), (0, 0, 50, 100))
    layers[1].paste((255, 0, 0, 128), (50, 0, 75, 100))
    mask = np.asarray(fitted(Image.new("RGB", (100, 100)), layers, 0.5, side=64, multiple=16).mask)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, :47] == 255).all()
    assert (mask[:, 49:] == 0).all()


def test_no_paint_is_no_mask() -> None:
    layers = [Image.new("RGBA", (100, 100), (0, 0, 0, 3))]
    assert fitted(Image.new("RGB", (100, 100)), layers, 0.5, side=64, multiple=16).mask is None


def test_what_is_not_masked_stays() -> None:
    mask = Image.new("L", (4, 4))
    mask.paste(255, (0, 0, 2, 4))
    kept = np.asarray(
        Source(Image.new("RGB", (4, 4), "red"), mask, 1.0).keep_the_rest(Image.new("RGB", (4, 4), "blue"))
    )
    assert (kept[:, :2] == (0, 0, 255)).all()
    assert (kept[:, 2:] == (255, 0, 0)).all()
