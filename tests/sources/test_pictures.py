"""Pictures in files and in parts of files, on this machine and elsewhere."""

import base64
from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.images import ImageError
from altdiffusion_clip.sources.pictures import Located, StoredImage, decode
from altdiffusion_clip.sources.retries import PassingImageError, Retries
from tests.sources.faulty import Faulty, UnavailableError

NO_WAIT = Retries(first_wait=0)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def pack(picture: Path) -> tuple[Path, int, int]:
    """A file with a picture in it, and the picture's offset and size."""
    data = picture.read_bytes()
    pack = picture.with_name("pack.bin")
    pack.write_bytes(b"before" + data + b"behind")
    return pack, len(b"before"), len(data)


@pytest.mark.parametrize("where", ["{}", "file://{}", "faulty://{}"])
def test_a_part_of_a_file_is_read_alone(where: str, pack: tuple[Path, int, int]) -> None:
    Faulty.reset()
    path, offset, size = pack
    part = Located(where.format(path), size, offset, key="a.png")
    assert isinstance(part, StoredImage)
    assert part.is_there()
    assert part.name.endswith("pack.bin: a.png")
    assert decode(part).size == (40, 30)
    assert Faulty.bytes in (0, size)


def test_a_part_that_comes_short_is_asked_for_again(pack: tuple[Path, int, int]) -> None:
    path, offset, size = pack
    part = Located(f"faulty://{path}", size, offset)
    Faulty.reset(lambda number, path: "short" if number == 0 else None)
    assert len(part.read(NO_WAIT)) == size
    Faulty.reset(lambda number, path: UnavailableError())
    with pytest.raises(PassingImageError, match="cannot be read"):
        part.read(NO_WAIT)


def test_base64_is_decoded_or_said_to_be_damaged(picture: Path) -> None:
    line = base64.b64encode(picture.read_bytes())
    table = picture.with_name("a.tsv")
    table.write_bytes(b"1\t" + line + b"\n2\t" + line[:-3] + b"!!!\n")
    assert decode(Located(str(table), len(line), 2, is_base64=True)).size == (40, 30)
    with pytest.raises(ImageError, match="damaged"):
        Located(str(table), len(line), 5 + len(line), is_base64=True).read()


def test_what_is_not_there(tmp_path: Path) -> None:
    gone = Located(str(tmp_path / "gone.png"))
    assert not gone.is_there()
    assert not Located(str(tmp_path)).is_there()
    with pytest.raises(ImageError, match="no such file"):
        gone.read()
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="an empty file"):
        decode(Located(str(tmp_path / "empty.png")))
