from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip.images import BrokenImage, ImageError, find_images, load_image, load_images

RED = (200, 30, 40)


@pytest.fixture
def red() -> Image.Image:
    return Image.new("RGB", (12, 8), RED)


def test_every_source_gives_the_same_picture(red: Image.Image, tmp_path: Path) -> None:
    red.save(tmp_path / "red.png")
    array = np.asarray(red)
    sources = [
        red,
        tmp_path / "red.png",
        str(tmp_path / "red.png"),
        array,
        array / 255.0,
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255,
    ]
    for source in sources:
        assert (np.asarray(load_image(source)) == array).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 65535, dtype=np.uint16))
    else:
        image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    read = load_image(image)
    assert read.mode == "RGB"
    assert np.asarray(read).min() > 250 or mode == "I"


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (*RED, 255))
    image.save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)
    assert load_image(tmp_path / "a.png").getpixel((1, 0)) == RED


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (30, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").size == (10, 30)


class TestBrokenPictures:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "an empty file"),
            (b"plain text", "not a picture"),
            (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged|not a pic"),
        ],
    )
    def test_content(self, content: bytes, reason: str, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ImageError, match=reason):
            load_image(tmp_path / "a.png")

    def test_truncated(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for suffix in (".png", ".jpg"):
            whole = tmp_path / f"whole{suffix}"
            Image.fromarray(noise).save(whole)
            cut = tmp_path / f"cut{suffix}"
            cut.write_bytes(whole.read_bytes()[:1500])
            with pytest.raises(ImageError, match="damaged"):
                load_image(cut)

    def test_missing_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no such file"):
            load_image(tmp_path / "none.png")
        with pytest.raises(ImageError, match="a folder"):
            load_image(tmp_path)

    def test_decompression_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("1", (400, 400)).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
        with pytest.raises(ImageError, match="too many pixels"):
            load_image(tmp_path / "a.png")

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            (torch.zeros(4, 8, 8), "a tensor of shape"),
            (torch.zeros(8, 8), "a tensor of shape"),
            (np.zeros((8, 8)), "an array of shape"),
            (torch.full((3, 8, 8), torch.nan), "not finite"),
            (torch.full((3, 8, 8), 200.0), "outside"),
            (torch.full((3, 8, 8), -1.0), "outside"),
            (torch.zeros(3, 0, 8), "outside"),
        ],
        ids=str,
    )
    def test_arrays(self, source: object, reason: str) -> None:
        with pytest.raises(ImageError, match=reason):
            load_image(source)  # type: ignore[arg-type]

    def test_the_rest_goes_on(self, red: Image.Image, tmp_path: Path) -> None:
        (tmp_path / "bad.png").write_bytes(b"")
        images, places, broken = load_images([red, tmp_path / "bad.png", red])
        assert len(images) == 2
        assert places == [0, 2]
        assert broken == [BrokenImage(1, str(tmp_path / "bad.png"), "an empty file")]
        assert str(broken[0]) == f"{tmp_path / 'bad.png'}: an empty file"


def test_folders_are_searched_for_pictures(red: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.webp"):
        (tmp_path / name).touch()
    named = tmp_path / "notes.txt"
    found = find_images([tmp_path, named])
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.webp", "notes.txt"]


def test_a_folder_of_drawn_pictures_without_its_contact_sheet(red: Image.Image, tmp_path: Path) -> None:
    for name in ("contact-sheet.png", "000-seed0.png", ".001-seed1-half.png"):
        (tmp_path / name).touch()
    assert len(find_images([tmp_path])) == 2, "a contact sheet of somebody else's is a picture"
    (tmp_path / "results.jsonl").touch()
    assert [path.name for path in find_images([tmp_path])] == ["000-seed0.png"]
