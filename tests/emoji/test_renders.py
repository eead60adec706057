import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.emoji import concepts, find_colour, find_concept, render
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.recogniser import background_of
from altdiffusion_clip.emoji.renders import HELD_OUT_PLACEMENTS, Placement, font_path


def has_font() -> bool:
    try:
        return font_path().is_file()
    except FileNotFoundError:
        return False


def test_a_missing_font_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTDIFFUSION_EMOJI_FONT", "/nowhere/NotoColorEmoji.ttf")
    with pytest.raises(FileNotFoundError, match="install the package fonts-noto-color-emoji"):
        font_path()


def test_the_background_of_a_held_out_render_is_recognised() -> None:
    for picture in held_out_pictures():
        with Image.open(picture.path) as image:
            assert background_of(image) == picture.colour, picture.path


@pytest.mark.skipif(not has_font(), reason="only retraining needs Noto Color Emoji")
class TestWithTheFont:
    def test_every_concept_has_a_picture_of_its_own(self) -> None:
        blue = find_colour("blue")
        pictures = {render(concept, blue).tobytes() for concept in concepts()}
        assert len(pictures) == len(concepts())

    def test_placements_move_and_resize(self) -> None:
        cat, white = find_concept("cat"), find_colour("white")

        def box(placement: Placement) -> tuple[int, int, int, int]:
            different = np.abs(np.asarray(render(cat, white, placement), dtype=int) - white.rgb).sum(2) > 30
            rows, columns = np.where(different.any(1))[0], np.where(different.any(0))[0]
            return columns[0], rows[0], columns[-1], rows[-1]

        middle, moved, larger = (box(p) for p in (Placement(46), Placement(46, 4, -2), Placement(54)))
        assert [b - a for a, b in zip(middle, moved, strict=True)] == [4, -2, 4, -2]
        assert larger[3] - larger[1] > middle[3] - middle[1]

    def test_the_shipped_pictures_are_renders(self) -> None:
        generator = random.Random(0)
        for picture in held_out_pictures()[:8]:
            drawn = np.asarray(
                render(picture.concept, picture.colour, generator.choice(HELD_OUT_PLACEMENTS)), dtype=int
            )
            with Image.open(Path(picture.path)) as shipped:
                # Another release of the font or of Pillow may differ by a little.
                assert np.abs(drawn - np.asarray(shipped, dtype=int)).mean() < 2
