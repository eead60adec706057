import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from altdiffusion_clip.judges.cache import VectorCache, default_cache, key_of
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import embed_pictures
from altdiffusion_clip.judges.names import load_dual
from altdiffusion_clip.sources.pictures import Located
from tests.conftest import in_full
from tests.pictures import held_out_pictures

X = key_of(b"text ", b"x")


class Counted:
    """A bench of a real judge that counts what the judge is asked."""

    def __init__(self, folder: Path | None = None) -> None:
        self.judge = load_dual(["emoji-m18"])
        self.texts = self.pictures = 0
        self.bench = Bench.of(
            self.judge, cache=None if folder is None else lambda fingerprint: VectorCache(folder, fingerprint)
        )
        texts, pictures = self.judge.text_features, self.judge.picture_features

        def count_texts(given):
            self.texts += len(given)
            return texts(given)

        def count_pictures(given):
            self.pictures += len(given["pixel_values"])
            return pictures(given)

        self.judge.text_features, self.judge.picture_features = count_texts, count_pictures


@pytest.mark.parametrize("count", [0, *in_full(1)])
def test_a_second_run_encodes_nothing(tmp_path: Path, count: int) -> None:
    pictures = [Located(str(picture.path)) for picture in held_out_pictures()[:20]]
    texts = [*(f"a cat {number}" for number in range(30)), "a cat 0"]
    first, second = Counted(tmp_path), Counted(tmp_path)
    vectors = [
        (each.bench.encoder.texts(texts).numpy(), embed_pictures(each.bench, pictures, count).vectors)
        for each in (first, second)
    ]
    assert (first.texts, first.pictures) == (30, 20)
    assert (second.texts, second.pictures) == (0, 0)
    for a, b in zip(*vectors, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pictures_read_otherwise_are_others(tmp_path: Path) -> None:
    """Drafts of JPEGs and whole pictures have vectors of their own."""
    counted = Counted(tmp_path)
    data = held_out_pictures()[0].path.read_bytes()
    (exact,), (draft,) = (counted.bench.preparation(is_exact)([data]) for is_exact in (True, False))
    assert exact.key != draft.key


def test_equal_texts_and_equal_pictures_are_encoded_once() -> None:
    counted = Counted()
    vectors = counted.bench.encoder.texts(["猫", "狗", "猫"])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert counted.texts == 2
    embed_pictures(counted.bench, [Located(str(held_out_pictures()[0].path))] * 5)
    assert counted.pictures == 1


def test_pictures_that_came_decoded_are_not_kept(tmp_path: Path) -> None:
    from PIL import Image

    for colour in ("red", "blue"):
        embedded = embed_pictures(Counted(tmp_path).bench, [Image.new("RGB", (64, 64), colour)])
        expected = embed_pictures(Counted().bench, [Image.new("RGB", (64, 64), colour)])
        np.testing.assert_array_equal(embedded.vectors, expected.vectors)


def test_another_judge_does_not_find_them(tmp_path: Path) -> None:
    VectorCache(tmp_path, "one").put([X], np.ones((1, 4), np.float32))
    assert VectorCache(tmp_path, "two").get([X]) == {}
    np.testing.assert_array_equal(VectorCache(tmp_path, "one").get([X])[X], np.ones(4))


def test_more_keys_than_one_question_may_have(tmp_path: Path) -> None:
    keys = [key_of(b"text ", str(number).encode()) for number in range(1203)]
    cache = VectorCache(tmp_path, "one")
    cache.put(keys, np.arange(1203, dtype=np.float32)[:, None])
    found = cache.get(keys)
    assert [int(found[key][0]) for key in keys] == list(range(1203))


def test_it_does_not_grow_beyond_its_size(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "one", most_bytes=1_000_000)
    keys = [key_of(b"text ", str(number).encode()) for number in range(4000)]
    for start in range(0, len(keys), 100):
        cache.put(keys[start : start + 100], np.ones((100, 256), np.float32))
    assert (tmp_path / "vectors.sqlite").stat().st_size < 2_000_000
    assert keys[-1] in cache.get(keys)
    assert keys[0] not in cache.get(keys), "what was kept first is let go"


def _write_for_ever(folder: Path) -> None:
    cache = VectorCache(folder, "one")
    for number in range(10**9):
        keys = [key_of(b"text ", str(number * 100 + i).encode()) for i in range(100)]
        cache.put(keys, np.full((100, 64), number, np.float32))


@pytest.mark.full
def test_a_run_that_is_killed_leaves_it_whole_and_others_go_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_for_ever, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 60
    first = key_of(b"text ", b"0")
    while not VectorCache(tmp_path, "one").get([first]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    cache = VectorCache(tmp_path, "one")
    assert len(cache.get([first])[first]) == 64
    cache.put([X], np.ones((1, 64), np.float32))
    assert cache.get([X])[X].sum() == 64


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\x00" + b"\xff" * 200])
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path, damage: bytes, caplog) -> None:
    (tmp_path / "vectors.sqlite").write_bytes(damage)
    assert Counted(tmp_path).bench.encoder.texts(["猫"]).shape == (1, 192)
    assert "vectors are not kept" in caplog.text


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTDIFFUSION_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("ALTDIFFUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "altdiffusion-clip"
