"""The picture that is changed, and where."""

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.demo.source import Source, fitted, paint_of
from altdiffusion_clip.demo.texts import Refusal
from tests.demo.conftest import data_url


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (64, 64)), ((4000, 4000), (64, 64)), ((100, 400), (32, 128)), ((5000, 10), (1424, 16))],
)
def test_the_models_area_in_the_pictures_proportions(size: tuple[int, int], expected: tuple[int, int]) -> None:
    source = fitted(Image.new("RGB", size), None, 0.5, side=64, multiple=16)
    assert source.image.size == expected
    assert source.mask is None


def test_paint_is_the_mask() -> None:
    paint = Image.new("RGBA", (50, 50))
    paint.paste((255, 0, 0, 255), (0, 0, 25, 50))
    paint.paste((255, 0, 0, 128), (25, 0, 37, 50))
    mask = np.asarray(fitted(Image.new("RGB", (100, 100)), paint, 0.5, side=64, multiple=16).mask)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, :46] == 255).all()
    assert (mask[:, 49:] == 0).all()


def test_no_paint_is_no_mask() -> None:
    paint = Image.new("RGBA", (100, 100), (0, 0, 0, 3))
    assert fitted(Image.new("RGB", (100, 100)), paint, 0.5, side=64, multiple=16).mask is None


def test_paint_comes_as_a_data_url() -> None:
    paint = Image.new("RGBA", (8, 4), (255, 0, 0, 200))
    read = paint_of(data_url(paint))
    assert read is not None
    assert list(read.getdata()) == list(paint.getdata())
    assert paint_of("") is None
    assert paint_of(None) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://example.org/a.png", "no_picture"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "no_picture"),
        ("data:image/png;base64,!!!", "no_picture"),
        ("data:image/png;base64,AAAA", "no_picture"),
        (5, "no_picture"),
        ("HUGE", "large_upload"),
    ],
)
def test_paint_that_is_refused(address: str, reason: str) -> None:
    if address == "HUGE":
        address = data_url(Image.new("1", (5000, 4)))
    with pytest.raises(Refusal) as refused:
        paint_of(address)
    assert refused.value.key == reason


def test_what_is_not_masked_stays() -> None:
    mask = Image.new("L", (4, 4))
    mask.paste(255, (0, 0, 2, 4))
    kept = np.asarray(
        Source(Image.new("RGB", (4, 4), "red"), mask, 1.0).keep_the_rest(Image.new("RGB", (4, 4), "blue"))
    )
    assert (kept[:, :2] == (0, 0, 255)).all()
    assert (kept[:, 2:] == (255, 0, 0)).all()
