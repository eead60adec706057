"""Replicas of the published layouts, made from emoji pictures, give the numbers of the pictures themselves."""

import base64
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.emoji.concepts import find_concept, find_ground, is_held_out
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.bench import Measured, measure, vectors_of
from altdiffusion_clip.evaluation.datasets.names import NAMES, read_dataset
from altdiffusion_clip.evaluation.retrieval import Retrieval, retrieval_of_embeddings
from altdiffusion_clip.judges.cache import VectorCache
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.ensembles import Panel
from altdiffusion_clip.sources.parquet import InParquet
from altdiffusion_clip.sources.pictures import Located, decode
from tests.evaluation.datasets import replicas


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def kept_in(cache: Path) -> Callable[[Panel], Bench]:
    return lambda panel: Bench(panel, 64, lambda fingerprint: VectorCache(cache, fingerprint))


def figures(name: str, folder: Path | None, cache: Path, **options) -> dict[str, Measured]:
    task = read_dataset(name, folder, **options)
    vectors = vectors_of("emoji-m18", task, bench_of=kept_in(cache))
    return {row.language: row for row in measure("emoji-m18", vectors, task)}


@functools.cache
def by_hand(language: str) -> tuple[Retrieval, dict[str, tuple[float, float]]]:
    """From the scorer's own vectors."""
    scorer = AltCLIPScorer.from_pretrained("emoji-m18").eval()
    with torch.no_grad():
        texts = scorer.encode_texts([replicas.said(picture, language)[0] for picture in replicas.PICTURES])
        images, _ = scorer.encode_images([picture.path for picture in replicas.PICTURES])
    return retrieval_of_embeddings(texts, images, np.stack([np.arange(len(texts))] * 2, axis=1))


def test_the_emoji_bench_is_of_pictures_that_were_never_shown() -> None:
    task = read_dataset("emoji")
    assert len(task.images) == len(set(task.ids)) == 400
    assert list(task.languages) == list(LANGUAGES)
    for name, picture in list(zip(task.ids, task.images, strict=True))[:20]:
        thing, _, ground = name.partition(" on ")
        assert is_held_out(find_concept(thing), find_ground(ground))
        assert decode(picture).size == (128, 128)


@pytest.mark.parametrize(
    ("name", "write", "languages"),
    [
        ("muge", replicas.write_muge, ["zh"]),
        ("flickr30k", replicas.write_flickr30k, ["en", "zh"]),
        ("flickr30k", lambda folder: replicas.write_flickr30k(folder, "dataset_flickr30k.json"), ["en", "zh"]),
        ("coco", lambda folder: replicas.write_coco(folder, "dataset_coco.json"), ["en"]),
        ("coco", lambda folder: replicas.write_coco(folder, "coco_test_karpathy.json"), ["en"]),
        ("coco-cn", lambda folder: replicas.write_coco(folder, "dataset_coco.json"), ["zh"]),
        ("xtd10", replicas.write_xtd, ["en", "zh", "ja"]),
        ("crossmodal-3600", replicas.write_crossmodal, ["en", "zh", "fr"]),
        ("webdataset", replicas.write_webdataset, ["en"]),
        ("jsonl", replicas.write_jsonl, ["en", "zh"]),
    ],
)
def test_a_replica_gives_the_numbers_of_the_pictures_themselves(
    name: str, write: Callable[[Path], Path], languages: list[str], cache: Path, tmp_path: Path
) -> None:
    rows = figures(name, write(tmp_path / "set"), cache)
    assert sorted(rows) == sorted(languages)
    for code in languages:
        assert (rows[code].figures, rows[code].intervals) == by_hand(code)
        assert (rows[code].texts, rows[code].images) == (180, 180)


def test_several_captions_of_an_image(tmp_path: Path) -> None:
    task = read_dataset("webdataset", replicas.write_webdataset(tmp_path, captions_each=3))
    english = task.languages["en"]
    assert (len(english.texts), len(task.images)) == (540, 180)
    np.testing.assert_array_equal(english.pairs[:6, 1], [0, 0, 0, 1, 1, 1])


def test_a_text_of_several_images_and_an_image_of_no_text(tmp_path: Path) -> None:
    folder = replicas.write_muge(tmp_path)
    (folder / "valid_texts.jsonl").write_text(
        json.dumps({"text_id": 0, "text": "猫", "image_ids": [1002, 1000]}) + "\n", encoding="utf-8"
    )
    language = read_dataset("muge", folder).languages["zh"]
    np.testing.assert_array_equal(language.pairs, [[0, 2], [0, 0]])
    assert len(language.images) == 180


def test_a_language_is_chosen(tmp_path: Path) -> None:
    folder = replicas.write_xtd(tmp_path)
    assert list(read_dataset("xtd10", folder, languages=["ja"]).languages) == ["ja"]
    assert list(read_dataset("muge", replicas.write_muge(tmp_path / "m"), languages=["fr"]).languages) == ["fr"]


def test_pictures_in_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    data = [picture.path.read_bytes() for picture in replicas.PICTURES[:5]]
    cells = pyarrow.array([{"bytes": item, "path": None} for item in data])
    pyarrow.parquet.write_table(pyarrow.table({"img": cells}), tmp_path / "a.parquet", row_group_size=2)
    pictures = [InParquet(str(tmp_path / "a.parquet"), row // 2, row % 2, "img") for row in range(5)]
    assert [picture.read() for picture in pictures] == data
    assert decode(pictures[4]).size == (128, 128)


# ---------------------------------------------------------------- bad input, one line each


def refusal(name: str, folder: Path | None, **options) -> str:
    with pytest.raises(UserError) as caught:
        read_dataset(name, folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "emoji"])
def test_a_missing_data_set_says_where_people_get_it(name: str, tmp_path: Path) -> None:
    missing, empty = refusal(name, tmp_path / "nowhere"), refusal(name, tmp_path)
    assert "there is no" in missing
    for message in (missing, empty, refusal(name, None)):
        assert any(word in message for word in (".json", ".tar", ".txt", '{"image": "1.png"'))
        assert name in ("jsonl", "webdataset") or any(word in message for word in (".org", ".com", ".edu", ".io"))


def test_an_unknown_data_set() -> None:
    assert "there are emoji, flickr30k, coco" in refusal("imagenet", None)


def test_missing_images_are_listed(tmp_path: Path, cache: Path) -> None:
    folder = replicas.write_jsonl(tmp_path)
    gone = sorted((folder / "pictures").iterdir())[:7]
    for path in gone:
        path.unlink()
    message = refusal("jsonl", folder)
    assert "7 of 180 images are not there" in message
    assert gone[0].name in message
    assert "and 2 more" in message
    assert "--allow-missing" in message
    task = read_dataset("jsonl", folder, allow_missing=True)
    assert len(task.missing) == 7
    (row, *_) = measure("emoji-m18", vectors_of("emoji-m18", task, bench_of=kept_in(cache)), task)
    assert (row.texts, row.images) == (173, 173)


def test_broken_images_are_named(tmp_path: Path, cache: Path) -> None:
    folder = replicas.write_jsonl(tmp_path)
    pictures = sorted((folder / "pictures").iterdir())
    pictures[3].write_bytes(b"")
    pictures[5].write_bytes(pictures[5].read_bytes()[:100])
    task = read_dataset("jsonl", folder)
    vectors = vectors_of("emoji-m18", task, bench_of=kept_in(cache))
    with pytest.raises(UserError, match=r"2 of 180 images cannot be read, the first is .*: an empty file; fix them"):
        measure("emoji-m18", vectors, task)
    rows = measure("emoji-m18", vectors, task, allow_missing=True)
    assert [(row.texts, row.images) for row in rows] == [(178, 178)] * 2


def test_duplicate_ids(tmp_path: Path) -> None:
    folder = replicas.write_muge(tmp_path)
    images = folder / "valid_imgs.tsv"
    lines = images.read_text().splitlines()
    images.write_text("\n".join([*lines, lines[3]]) + "\n")
    assert "the image id 1003 is there twice" in refusal("muge", folder)


def test_captions_without_images(tmp_path: Path) -> None:
    folder = replicas.write_muge(tmp_path)
    texts = folder / "valid_texts.jsonl"
    whole = texts.read_text(encoding="utf-8")
    texts.write_text(whole + json.dumps({"text_id": 9, "text": "dog", "image_ids": []}) + "\n", encoding="utf-8")
    assert "a caption has no image: 'dog'" in refusal("muge", folder)
    texts.write_text(whole + json.dumps({"text_id": 9, "text": "dog", "image_ids": [7]}) + "\n", encoding="utf-8")
    assert "a caption is of image 7, which is not there: 'dog'" in refusal("muge", folder)
    texts.write_text(json.dumps({"text_id": 9, "text": "dog", "image_ids": []}) + "\n")
    assert "does not say which images belong to its texts; take the split valid" in refusal("muge", folder)


def test_an_empty_language(tmp_path: Path) -> None:
    folder = replicas.write_xtd(tmp_path)
    assert "there are no captions in ko; it has en, ja, zh" in refusal("xtd10", folder, languages=["en", "ko"])
    (folder / "test_1kcaptions_ko.txt").write_text("\n" * 180)
    assert "there are no captions in ko" in refusal("xtd10", folder, languages=["ko"])


def test_files_of_different_lengths(tmp_path: Path) -> None:
    folder = replicas.write_xtd(tmp_path)
    (folder / "test_1kcaptions_ko.txt").write_text("하나\n둘\n", encoding="utf-8")
    assert "has 2 lines and test_image_names.txt 180" in refusal("xtd10", folder)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("muge", "valid_texts.jsonl", b"{", "line 1: not JSON"),
        ("muge", "valid_texts.jsonl", b"[1]\n", "line 1: a JSON object is expected"),
        ("muge", "valid_texts.jsonl", b'{"text": 1}\n', "line 1: text and image_ids are expected"),
        ("muge", "valid_texts.jsonl", b"\xff\xfe\xff", "is not UTF-8 text"),
        ("muge", "valid_imgs.tsv", b"1000 no tab\n", "line 1: an id, a tab and a picture"),
        ("flickr30k", "flickr30k_test_karpathy.txt", b"no name in front\n", "the name of a picture and a caption"),
        ("coco", "dataset_coco.json", b"{]", "is not JSON"),
        ("webdataset", "test/0.tar", b"no tar at all", "is not a plain tar file"),
        ("jsonl", "captions.jsonl", b'{"image": "a.png"}\n', "image and captions are expected"),
        ("crossmodal-3600", "captions.jsonl", b"{}\n", "no image/key"),
    ],
)
def test_damaged_files(name: str, file: str, content: bytes, message: str, tmp_path: Path) -> None:
    if name == "muge":
        replicas.write_muge(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content)
    assert message in refusal(name, tmp_path)


def test_a_picture_that_is_no_base64(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\t" + base64.b64encode(b"abc").decode() + "!\n")
    with pytest.raises(ValueError, match="not base64"):
        Located(str(tmp_path / "a.tsv"), 5, 2, is_base64=True).read()
