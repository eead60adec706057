"""Pictures in tars and in Parquet, here and elsewhere."""

import io
import json
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.drawing.log import read_results
from altdiffusion_clip.drawing.packing import is_packed, pack_of
from altdiffusion_clip.drawing.png_text import SETTINGS_KEY
from tests.conftest import FULL
from tests.processes import Command

Run = Callable[..., int]


@pytest.fixture(scope="module")
def common(quick_model: Path) -> list[str]:
    return ["generate", "猫", "a dog", "ein Auto", "--num-images", "3", "--steps", "1", "--model", str(quick_model)]


@pytest.fixture(scope="module")
def run(common: list[str]) -> Run:
    return lambda *arguments: main([*common, *map(str, arguments)])


def pictures_of(folder: Path) -> dict[str, bytes]:
    """Of all packs of a folder, by name."""
    found = {}
    for path in sorted(folder.glob("pictures-*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
            found |= {name: data for name, data in members.items() if name.endswith(".png")}
        else:
            images = pyarrow.parquet.read_table(path)["image"].to_pylist()
            found |= {image["path"]: image["bytes"] for image in images}
    return found


@pytest.fixture(scope="module")
def plain(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    assert run("--output", folder) == 0
    return folder


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_pictures_are_packed_as_they_were(run: Run, kind: str, plain: Path, tmp_path: Path) -> None:
    assert run("--pack", kind, "--pack-size", 4, "--output", tmp_path) == 0
    assert [path.name for path in sorted(tmp_path.glob("pictures-*"))] == [
        f"pictures-{number:06d}.{kind}" for number in range(3)
    ]
    assert not list(tmp_path.glob("*-seed*.png"))
    assert pictures_of(tmp_path) == {path.name: path.read_bytes() for path in plain.glob("*-seed*.png")}
    rows, expected = read_results(tmp_path), read_results(plain)
    assert [row["rank"] for row in rows] == [row["rank"] for row in expected]
    assert rows[0]["file"] == f"pictures-000000.{kind}:000-seed0.png"
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count("<img") == 9
    assert 'src="thumbnails/000-seed0.webp"' in page
    assert (tmp_path / "contact-sheet.png").is_file()
    # What is packed is there.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("pictures-*")}
    assert run("--pack", kind, "--pack-size", 4, "--output", tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("pictures-*")} == before
    next(iter(before)).unlink()
    assert run("--pack", kind, "--pack-size", 4, "--output", tmp_path) == 0
    assert len(pictures_of(tmp_path)) == 9


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_a_pack_is_a_source_of_rows(run: Run, kind: str, tmp_path: Path) -> None:
    assert run("--pack", kind, "--output", tmp_path / "drawn") == 0
    (pack,) = (tmp_path / "drawn").glob("pictures-*")
    assert main(["score", str(pack), "--output", str(tmp_path / "s"), "--dtype", "float32", "--workers", "0"]) == 0
    expected = [row["score"]["cosine"] for row in read_results(tmp_path / "drawn")]
    assert [row.scores[0] for row in read_shards(tmp_path / "s")] == pytest.approx(expected, abs=1e-4)


def test_a_tar_has_the_row_beside_the_picture(run: Run, tmp_path: Path) -> None:
    assert run("--pack", "tar", "--output", tmp_path) == 0
    with tarfile.open(tmp_path / "pictures-000000.tar") as tar:
        names = tar.getnames()
        row = json.load(tar.extractfile("001-seed2.json"))  # type: ignore[arg-type]
        prompt = tar.extractfile("001-seed2.txt").read().decode()  # type: ignore[union-attr]
        with Image.open(io.BytesIO(tar.extractfile("001-seed2.png").read())) as image:  # type: ignore[union-attr]
            assert json.loads(image.text[SETTINGS_KEY])["seed"] == 2
    assert names[:3] == ["000-seed0.png", "000-seed0.txt", "000-seed0.json"]
    assert (row["prompt"], row["file"], prompt) == ("a dog", "001-seed2.png", "a dog")
    assert row["rank"] in (1, 2, 3)


def test_to_a_url(run: Run, tmp_path: Path, plain: Path) -> None:
    assert run("--pack", "tar", "--pack-size", 5, "--pack-to", "memory://bucket/run", "--output", tmp_path) == 0
    store = fsspec.filesystem("memory")
    assert sorted(store.ls("/bucket/run", detail=False)) == [f"/bucket/run/pictures-00000{n}.tar" for n in range(2)]
    rows = read_results(tmp_path)
    assert rows[0]["file"] == "memory://bucket/run/pictures-000000.tar:000-seed0.png"
    with tarfile.open(fileobj=io.BytesIO(store.cat_file("/bucket/run/pictures-000000.tar"))) as tar:
        data = tar.extractfile("000-seed0.png").read()  # type: ignore[union-attr]
    assert data == (plain / "000-seed0.png").read_bytes()
    store.rm("/bucket", recursive=True)


def test_killed_while_it_packs_no_picture_is_lost(common: list[str], plain: Path, tmp_path: Path) -> None:
    command = [*common, "--pack", "tar", "--pack-size", "2", "--output", tmp_path / "out"]
    for number in range(4 if FULL else 2):
        process = Command(command, tmp_path)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "out").glob("pictures-*.tar"))) <= number and process.returncode is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main([str(word) for word in command]) == 0
    assert pictures_of(tmp_path / "out") == {path.name: path.read_bytes() for path in plain.glob("*-seed*.png")}
    rows = read_results(tmp_path / "out")
    assert len(rows) == 9
    for row in rows:
        pack, _ = pack_of(row["file"])
        with tarfile.open(tmp_path / "out" / pack) as tar:
            image = Image.open(io.BytesIO(tar.extractfile(f"{row['name']}.png").read()))  # type: ignore[union-attr]
            assert np.asarray(image).shape == (64, 64, 3)


def test_wrong_calls(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pack-to", "elsewhere", "--output", tmp_path) == 2
    assert "add --pack tar or --pack parquet" in capsys.readouterr().err
    assert run("--pack", "tar", "--pack-size", 0, "--output", tmp_path) == 2
    assert "--pack-size must be 1 or more" in capsys.readouterr().err
    assert run("--pack", "tar", "--pack-to", "nosuch://bucket", "--output", tmp_path) == 2
    assert "cannot write nosuch://bucket/pictures-000000.tar" in capsys.readouterr().err.splitlines()[-1]
    assert len(list(tmp_path.glob("*-seed*.png"))) == 9, "nothing is lost"


def test_names_of_packs() -> None:
    assert pack_of("../x/pictures-2-of-4-000012.parquet:a-seed0.png") == ("../x/pictures-2-of-4-000012.parquet", 12)
    assert not is_packed("pictures-1.tar:a.png")
