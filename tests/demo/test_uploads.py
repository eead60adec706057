"""Components that read files in this project's way, also when Gradio makes them anew."""

from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.data_classes import FileData, ImageData
from PIL import Image

from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.uploads import looked_at, quiet


@pytest.fixture(params=["as it was made", "after the page's language was changed"])
def picture(request: pytest.FixtureRequest) -> Any:
    made = looked_at(gr.Image(type="filepath", image_mode=None), Limits(upload_pixels=100))
    # What gradio.blocks does for every update of a component.
    return made if request.param == "as it was made" else type(made)(**{**made.constructor_args, "label": "图片"})


def test_pictures_are_read_by_load_image(picture: Any, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    read = picture.preprocess(ImageData(path=str(tmp_path / "clear.png"), orig_name="clear.png"))
    assert read.mode == "RGB"
    assert read.getpixel((0, 0)) == (255, 255, 255)


def test_nothing_is_nothing(picture: Any) -> None:
    assert picture.preprocess(None) is None


def test_too_large_a_picture_is_refused(picture: Any, tmp_path: Path) -> None:
    Image.new("RGB", (11, 11)).save(tmp_path / "large.png")
    with pytest.raises(gr.Error, match="too large") as refused:
        picture.preprocess(ImageData(path=str(tmp_path / "large.png"), orig_name="large.png"))
    assert not refused.value.print_exception


def test_a_file_that_is_no_picture_is_refused(picture: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(gr.Error, match="not a picture"):
        picture.preprocess(ImageData(path=str(tmp_path / "text.png"), orig_name="text.png"))


def test_a_quiet_component_stays_quiet(tmp_path: Path) -> None:
    button = quiet(gr.UploadButton(file_types=["image"]))
    again = type(button)(**{**button.constructor_args, "label": "图片"})
    (tmp_path / "text.txt").write_text("no picture")
    with pytest.raises(gr.Error) as refused:
        again.preprocess(FileData(path=str(tmp_path / "text.txt"), orig_name="text.txt"))
    assert not refused.value.print_exception


def test_gradio_takes_it_for_its_own_component() -> None:
    mine, plain = looked_at(gr.Image(type="filepath"), Limits()), gr.Image(type="filepath")
    assert mine.get_block_name() == plain.get_block_name()
    assert mine.get_component_class_id() == plain.get_component_class_id()
