import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from altdiffusion_clip.evaluation.cache import EmbeddingCache, default_cache, key_of
from altdiffusion_clip.evaluation.datasets.names import read_dataset
from altdiffusion_clip.evaluation.encoding import encode_images, encode_texts
from altdiffusion_clip.evaluation.systems.names import load_system


class Counted:
    """A real system that counts what it is asked."""

    def __init__(self) -> None:
        self.system = load_system("emoji-m9")
        self.name, self.logit_scale = self.system.name, self.system.logit_scale
        self.texts = self.images = 0

    def encode_texts(self, texts):
        self.texts += len(texts)
        return self.system.encode_texts(texts)

    def encode_images(self, images):
        self.images += len(images)
        return self.system.encode_images(images)

    def fingerprint(self) -> str:
        return self.system.fingerprint()


def test_a_second_run_encodes_nothing(tmp_path: Path) -> None:
    task = read_dataset("emoji", languages=["zh"])
    texts = [*task.languages["zh"].texts, task.languages["zh"].texts[0]]
    first, second = Counted(), Counted()
    vectors = [
        (encode_texts(system, texts, cache), encode_images(system, task.images, cache).vectors)
        for system in (first, second)
        for cache in [EmbeddingCache(tmp_path, system.fingerprint())]
    ]
    assert (first.texts, first.images) == (180, 180)
    assert (second.texts, second.images) == (0, 0)
    for a, b in zip(*vectors, strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_texts_and_equal_pictures_are_encoded_once() -> None:
    task = read_dataset("emoji", languages=["zh"])
    system, nothing = Counted(), EmbeddingCache(None, "")
    vectors = encode_texts(system, ["猫", "狗", "猫"], nothing)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert system.texts == 2
    encode_images(system, [task.images[0]] * 5, nothing)
    assert system.images == 1


def test_another_system_does_not_find_them(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "one").put([key_of(b"x")], np.ones((1, 4), np.float32))
    assert EmbeddingCache(tmp_path, "two").get([key_of(b"x")]) == {}
    np.testing.assert_array_equal(EmbeddingCache(tmp_path, "one").get([key_of(b"x")])[key_of(b"x")], np.ones(4))


def test_more_keys_than_one_question_may_have(tmp_path: Path) -> None:
    keys = [key_of(str(number).encode()) for number in range(1203)]
    cache = EmbeddingCache(tmp_path, "one")
    cache.put(keys, np.arange(1203, dtype=np.float32)[:, None])
    found = cache.get(keys)
    assert [int(found[key][0]) for key in keys] == list(range(1203))


def _write_for_ever(folder: Path) -> None:
    cache = EmbeddingCache(folder, "one")
    for number in range(10**9):
        cache.put([key_of(str(number * 100 + i).encode()) for i in range(100)], np.full((100, 64), number, np.float32))


@pytest.mark.full
def test_a_run_that_is_killed_leaves_it_whole(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    first = key_of(b"0")
    while not EmbeddingCache(tmp_path, "one").get([first]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache = EmbeddingCache(tmp_path, "one")
    assert len(cache.get([first])[first]) == 64
    cache.put([first], np.ones((1, 64), np.float32))
    assert cache.get([first])[first].sum() == 64


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\x00" + b"\xff" * 200])
def test_a_damaged_cache_costs_time_and_nothing_else(tmp_path: Path, damage: bytes, caplog) -> None:
    (tmp_path / "embeddings.sqlite").write_bytes(damage)
    cache = EmbeddingCache(tmp_path, "one")
    assert encode_texts(load_system("emoji-m9"), ["猫"], cache).shape == (1, 128)
    assert "embeddings are not kept" in caplog.text


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTDIFFUSION_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("ALTDIFFUSION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "altdiffusion-clip"
