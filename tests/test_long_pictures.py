"""Long pictures: to the last digit what the processor makes, in the memory of what is looked at."""

import resource

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from altdiffusion_clip.long_pictures import middle_of_long


def processor(side: int, **more: object) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **more)


@pytest.mark.parametrize("side", [32, 64, 224])
@pytest.mark.parametrize(
    "size", [(500, 37), (37, 501), (1000, 300), (3, 400), (701, 233), (1, 900), (900, 1), (2, 5), (5000, 2400)]
)
def test_it_equals_the_processor(side: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(side * size[0])
    image = Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    whole = processor(side)(image, return_tensors="np").pixel_values
    np.testing.assert_array_equal(
        processor(side)(middle_of_long(image, processor(side)), return_tensors="np").pixel_values, whole
    )


@pytest.mark.parametrize("size", [(64, 64), (64, 128), (127, 64)])
def test_ordinary_pictures_are_left_alone(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert middle_of_long(image, processor(32)) is image


def test_a_processor_that_does_not_cut_is_left_alone() -> None:
    image = Image.new("RGB", (900, 1))
    assert middle_of_long(image, processor(32, do_center_crop=False)) is image


def test_it_takes_the_memory_of_what_is_looked_at() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert middle_of_long(Image.new("RGB", (1, 20_000)), processor(224)).size == (224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes; the whole would be 3 GB"
