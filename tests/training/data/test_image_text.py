import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from transformers import AutoTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.training.data import captioned, image_text
from altdiffusion_clip.training.data.image_text import CaptionedPictures, check_pictures, square
from tests.sources.faulty import Faulty, UnavailableError


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")


def write(folder: Path, records: list[dict[str, object]], pictures: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(pictures):
        Image.new("RGB", (20 + 4 * number, 16), (10 * number, 0, 0)).save(folder / f"{number}.png")
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_captions_are_drawn_with_their_picture(tokenizer, tmp_path: Path) -> None:
    data = write(
        tmp_path / "a",
        [
            {"image": "0.png", "captions": {"en": ["cat", "a cat"], "zh": ["猫"]}},
            {"image": "1.png", "caption": "dog"},
            {"image": "2.png", "text": "红苹果", "language": "zh"},
        ],
    )
    pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out")
    assert pictures.languages == ["en", "zh"]
    assert pictures.pixels_of(torch.arange(3)).shape == (3, 3, 8, 8)
    shown, texts = pictures.draw(400, torch.Generator().manual_seed(0))
    said = {(picture, pictures.texts.text(text)) for picture, text in zip(shown.tolist(), texts.tolist(), strict=True)}
    assert said == {(0, "cat"), (0, "a cat"), (0, "猫"), (1, "dog"), (2, "红苹果")}
    ids, mask = pictures.tokenised(torch.tensor([0, 2]), pad_token_id=1)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ["cat", "猫"]
    assert torch.equal(mask, (ids != 1).long())
    assert [None if t is None else pictures.texts.text(t) for t in pictures.first_captions("zh")] == [
        "猫",
        None,
        "红苹果",
    ]


def test_a_caption_is_true_of_every_picture_that_has_it(tokenizer, tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": ["cat", "a blue cat"]}},
        {"image": "1.png", "captions": {"en": ["cat", "a red cat"]}},
        {"image": "2.png", "captions": {"en": ["dog"]}},
    ]
    pictures = CaptionedPictures.prepare([write(tmp_path / "a", records)], 8, tokenizer, tmp_path / "out")
    rows = {pictures.texts.text(row): row for row in range(len(pictures.texts))}
    texts = torch.tensor([rows[text] for text in ("cat", "a blue cat", "dog")])
    assert pictures.positives(texts, torch.arange(3)).tolist() == [
        [True, True, False],
        [True, False, False],
        [False, False, True],
    ]


def test_languages_are_chosen_and_mixed(tokenizer, tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": "cat", "zh": "猫"}},
        {"image": "1.png", "captions": {"en": "dog", "zh": "狗"}},
    ]
    data = write(tmp_path / "a", records)
    chinese = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "zh", languages=["zh"])
    assert {chinese.texts.text(row) for row in range(len(chinese.texts))} == {"猫", "狗"}
    mixed = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out", weights={"en": 3.0})
    assert mixed.mix.shares == {"en": 0.75, "zh": 0.25}


def test_bad_records_are_counted_and_named(tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": "cat", "zh": "猫"}},
        {"image": "1.png", "captions": {"en": ""}},
        {"captions": {"en": "dog"}},
        {"image": "missing.png", "caption": "x"},
        {"image": "broken.png", "caption": "y"},
        {"image": "2.png", "captions": {"en": "pig"}},
    ]
    data = write(tmp_path / "a", records)
    (data / "broken.png").write_bytes((data / "0.png").read_bytes()[:40])
    pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out", languages=["en", "zh"])
    assert pictures.left_out == {"no caption": 1, "no image": 1, "image file missing": 1, "no caption in zh": 2}
    assert "5 left out" in caplog.text
    for _ in range(2):  # the second time by what the first has kept
        pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out", languages=["en", "zh"])
        check_pictures(pictures, Accelerator(cpu=True))
        assert pictures.left_out["image cannot be read"] == 1
        shown, _ = pictures.draw(50, torch.Generator().manual_seed(0))
        assert set(shown.tolist()) == {0, 2}
        assert [text is None for text in pictures.first_captions("en")] == [False, True, False]
    assert "1 of 3 pictures cannot be read and are left out; the first: " in caplog.text
    assert "broken.png: not a picture" in caplog.text


def test_no_picture_that_can_be_read(tokenizer, tmp_path: Path) -> None:
    data = write(tmp_path / "a", [{"image": "0.png", "caption": "cat"}])
    (data / "0.png").write_bytes(b"")
    pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out")
    with pytest.raises(UserError, match=r"none of the 1 pictures can be read; the first: .*0\.png: an empty file"):
        check_pictures(pictures, Accelerator(cpu=True))


SAID = ({"en": ["cat", "a cat"], "zh": ["猫"]}, {"en": ["dog"], "zh": ["狗"]}, {"en": ["pig"]})


def write_tar(path: Path, encoded: list[bytes]) -> str:
    with tarfile.open(path, "w") as tar:
        for number, data in enumerate(encoded):
            for name, content in (
                (f"{number:03d}.png", data),
                (f"{number:03d}.json", json.dumps({"captions": SAID[number % 3]}).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


def encoded_pictures(count: int) -> list[bytes]:
    files = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (20, 16), (10 * number, 0, 0)).save(file, "png")
        files.append(file.getvalue())
    return files


def write_source(kind: str, folder: Path) -> list[str]:
    encoded = encoded_pictures(3)
    if kind == "tar":
        return [write_tar(folder / "a.tar", encoded)]
    if kind == "pattern":
        write_tar(folder / "0.tar", encoded[:2])
        with tarfile.open(folder / "1.tar", "w") as tar:
            for name, content in (("2.txt", b"pig"), ("2.png", encoded[2])):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return [f"file://{folder}/{{0..1}}.tar"]
    if kind == "folder":
        for number, (data, said) in enumerate(zip(encoded, SAID, strict=True)):
            (folder / f"{number}.png").write_bytes(data)
            (folder / f"{number}.txt").write_text(said["en"][0])
        return [str(folder)]
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = encoded if kind == "parquet of bytes" else [{"bytes": data, "path": None} for data in encoded]
    records = [{"captions": {"zh": [], **said}, "image": cell} for said, cell in zip(SAID, cells, strict=True)]
    parquet.write_table(pa.Table.from_pylist(records), folder / "a.parquet", row_group_size=2)
    return [str(folder / "a.parquet")]


@pytest.mark.parametrize("kind", ["tar", "pattern", "folder", "parquet of bytes", "parquet of structs"])
def test_pictures_are_read_where_they_lie(kind: str, tokenizer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = write_source(kind, tmp_path / "data")
    pictures = CaptionedPictures.prepare(data, 8, tokenizer, tmp_path / "out")
    assert pictures.pixels_of(torch.tensor([2, 0, 1])).amax((1, 2, 3)).tolist() == [20, 0, 10]
    said = [{pictures.texts.text(text) for text in pictures.of_picture[row]} for row in range(3)]
    if kind == "folder":
        assert said == [{"cat"}, {"dog"}, {"pig"}]
    else:
        assert said == [{"cat", "a cat", "猫"}, {"dog", "狗"}, {"pig"}]
    check_pictures(pictures, Accelerator(cpu=True), workers=2)
    assert pictures.kept.all()


def test_a_shard_that_ends_too_early_is_read_to_where_it_is_whole(tokenizer, tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", encoded_pictures(3))
    cut = Path(write_tar(tmp_path / "1.tar", encoded_pictures(6)))
    cut.write_bytes(cut.read_bytes()[: 9 * 512 + 100])
    pictures = CaptionedPictures.prepare([whole, cut], 8, tokenizer, tmp_path / "out")
    assert pictures.left_out == {"the tar file is damaged": 1}
    assert 3 < len(pictures) < 9
    check_pictures(pictures, Accelerator(cpu=True))
    assert pictures.kept.all()


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_captions_in_another_encoding(kind: str, tokenizer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.png").write_bytes(encoded_pictures(1)[0])
    (tmp_path / "data" / "0.txt").write_bytes("蓝色背景".encode("gb18030"))
    place = tmp_path / "data"
    if kind == "tar":
        place = tmp_path / "a.tar"
        with tarfile.open(place, "w") as tar:
            for name in ("0.png", "0.txt"):
                tar.add(tmp_path / "data" / name, name)
    pictures = CaptionedPictures.prepare([place], 8, tokenizer, tmp_path / "out", encoding="gb18030")
    assert pictures.texts.text(0) == "蓝色背景"
    with pytest.raises(UserError, match=r"no picture with a caption .*(not UTF-8|cannot be read)"):
        CaptionedPictures.prepare([place], 8, tokenizer, tmp_path / "other")


def test_a_compressed_shard_is_refused_in_one_line(tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="unpack it with gunzip"):
        CaptionedPictures.prepare([tmp_path / "a.tar.gz"], 8, tokenizer, tmp_path / "out")


def test_samples_of_a_shard_that_lack_something_are_counted(tokenizer, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (
            ("0.png", encoded_pictures(1)[0]), ("0.json", b"{"),
            ("1.txt", b"a cat"),
            ("2.png", encoded_pictures(1)[0]),
            ("3.png", b""), ("3.txt", b"a dog"),
            ("4.png", encoded_pictures(1)[0]), ("4.json", b'{"caption": 3}'),
            ("5.png", encoded_pictures(1)[0]), ("5.txt", b"a pig"),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    pictures = CaptionedPictures.prepare([tmp_path / "a.tar"], 8, tokenizer, tmp_path / "out")
    check_pictures(pictures, Accelerator(cpu=True))
    assert pictures.left_out == {
        "its text or .json cannot be read": 1, "no image": 1, "no caption": 2, "image cannot be read": 1,
    }  # fmt: skip
    assert pictures.kept.tolist() == [False, True]


def test_no_picture_at_all(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture with a caption"):
        CaptionedPictures.prepare([write(tmp_path / "a", [{"image": "9.png"}])], 8, tokenizer, tmp_path / "out")
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        CaptionedPictures.prepare([tmp_path / "nowhere"], 8, tokenizer, tmp_path / "out")


class TestFarAway:
    """On a file system that fails as remote ones do."""

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        for module in (captioned, image_text):
            monkeypatch.setattr(module, "RETRIES", Retries(attempts=3, first_wait=0.0, longest_wait=0.01))
        Faulty.reset()
        yield
        Faulty.reset()

    @pytest.mark.parametrize("kind", ["tar", "parquet of bytes", "folder"])
    def test_faults_that_pass_are_tried_again(self, kind: str, tokenizer, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        places = [f"faulty://{place}" for place in write_source(kind, tmp_path / "data")]
        Faulty.reset(lambda number, path: UnavailableError() if number % 4 == 0 else None)
        pictures = CaptionedPictures.prepare(places, 8, tokenizer, tmp_path / "out")
        check_pictures(pictures, Accelerator(cpu=True))
        assert len(pictures) == 3
        assert pictures.kept.all()

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("kind", ["tar", "parquet of bytes"])
    def test_a_picture_that_is_not_there_now_is_not_left_out(
        self, kind: str, workers: int, tokenizer, tmp_path: Path
    ) -> None:
        (tmp_path / "data").mkdir()
        places = [f"faulty://{place}" for place in write_source(kind, tmp_path / "data")]
        pictures = CaptionedPictures.prepare(places, 8, tokenizer, tmp_path / "out")
        Faulty.reset(lambda number, path: UnavailableError())
        with pytest.raises(UserError, match=r"a picture cannot be read .*; give the same command again to continue"):
            check_pictures(pictures, Accelerator(cpu=True), workers)
        Faulty.reset()
        check_pictures(pictures, Accelerator(cpu=True), workers)
        assert pictures.kept.all()

    def test_a_source_that_breaks_off_is_one_line(self, tokenizer, tmp_path: Path) -> None:
        place = f"faulty://{write_tar(tmp_path / 'a.tar', encoded_pictures(9) * 40)}"
        Faulty.reset(lambda number, path: UnavailableError() if number > 3 else None)
        with pytest.raises(UserError, match=r"breaks off .*; give the same command again when it can be read"):
            CaptionedPictures.prepare([place], 8, tokenizer, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_squares() -> None:
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste("red", (10, 0, 30, 20))
    middle = np.asarray(square(wide, 10))
    assert middle.shape == (10, 10, 3)
    assert (middle[:, 1:-1] == (255, 0, 0)).all(), "scaled, then cut around the middle"
    assert square(Image.new("RGB", (8, 5)), 16).size == (16, 16)


def test_positives_are_whatever_is_true_in_large_batches_too(tokenizer, tmp_path: Path) -> None:
    said = ["cat", "dog", "red apple", "a picture"]
    records = [{"image": f"{n}.png", "captions": {"en": [said[n], said[3]]}} for n in range(3)]
    pictures = CaptionedPictures.prepare([write(tmp_path / "a", records, 3)], 8, tokenizer, tmp_path / "out")
    shown, texts = pictures.draw(4096, torch.Generator().manual_seed(0))
    found = pictures.positives(texts, shown)
    few = slice(0, 60)
    true_of = [set(pictures.of_picture[picture].tolist()) for picture in shown[few].tolist()]
    slow = torch.tensor([[text in captions for captions in true_of] for text in texts[few].tolist()])
    assert torch.equal(found[few, few], slow)
