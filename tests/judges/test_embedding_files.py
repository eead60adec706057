import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.bench import measure, vectors_of
from altdiffusion_clip.evaluation.datasets.names import read_dataset
from altdiffusion_clip.judges.embedding_files import SUFFIXES, Embeddings, read_embeddings, write_embeddings


def some(images: int = 3, texts: int = 2, width: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "images": np.array([f"{number}.png" for number in range(images)]),
        "img_embedding": generator.normal(size=(images, width)).astype(np.float32),
        "texts": np.array(["猫", "a dog", "x", "y"][:texts]),
        "text_embedding": generator.normal(size=(texts, width)).astype(np.float32),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    given = some()
    unit = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in given.items() if v.ndim == 2}
    path = tmp_path / f"a{suffix}"
    written = Embeddings(
        ["0.png", "1.png", "2.png"], unit["img_embedding"], ["猫", "a dog"], unit["text_embedding"], 42.5
    )
    write_embeddings(path, written)
    read = read_embeddings(path)
    assert (read.images, read.texts, read.logit_scale) == (written.images, written.texts, 42.5)
    np.testing.assert_allclose(read.img_embedding, written.img_embedding, atol=1e-6)
    np.testing.assert_allclose(read.text_embedding, written.text_embedding, atol=1e-6)
    np.testing.assert_array_equal(read.texts_of(["a dog", "猫"], path), read.text_embedding[[1, 0]])


def test_vectors_that_are_not_unit_vectors_are_made_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **some())
    read = read_embeddings(tmp_path / "a.npz")
    np.testing.assert_allclose(np.linalg.norm(read.img_embedding, axis=1), 1, atol=1e-6)
    assert read.logit_scale == 100


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_embeddings(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_embedding": np.ones((2, 5), np.float32)}, "vectors of 4 numbers for images and 5 for texts"),
        ({"images": np.array(["a", "b"])}, "names 2 images and has 3 vectors of them"),
        ({"images": np.array(["a", "b", "a"])}, "has 'a' twice among its images"),
        ({"img_embedding": np.full((3, 4), np.nan, np.float32)}, "a vector of images is not finite"),
        ({"img_embedding": np.zeros((3, 4), np.float32)}, "a vector of images is all zeros"),
        ({"img_embedding": np.zeros(3, np.float32)}, r"the shape (3,); (number, width) is expected"),
        ({"img_embedding": np.ones((3, 4), np.int64)}, "the shape (3, 4)"),
        ({"texts": None}, "has no texts; see altdiffusion embed --help"),
        # Made of objects, it would have to be unpickled.
        ({"texts": np.array(["a", "b"], dtype=object)}, "cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_bad_npz(change: dict, message: str, tmp_path: Path) -> None:
    arrays = {key: value for key, value in {**some(), **change}.items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in refusal(tmp_path / "a.npz")


def test_bad_files(tmp_path: Path) -> None:
    assert "there is no" in refusal(tmp_path / "a.npz")
    assert "the name must end in .npz, .safetensors, .parquet" in refusal(tmp_path / "a.pt")
    for suffix in SUFFIXES:
        (tmp_path / f"b{suffix}").write_bytes(b"not at all")
        assert "cannot be read" in refusal(tmp_path / f"b{suffix}")
    given = some()
    save_file({"img_embedding": given["img_embedding"]}, tmp_path / "c.safetensors", {"images": json.dumps(["a"])})
    assert "has no texts" in refusal(tmp_path / "c.safetensors")


def test_parquet_of_another_form(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"], "embedding": [[1.0]]}), path)
    assert "has no column kind" in refusal(path)
    rows = {"kind": ["image", "text"], "id": ["a", "b"], "embedding": [[1.0, 2.0], [1.0]]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    assert "has vectors of 1 and of 2 numbers" in refusal(path)


def test_what_a_file_lacks_is_named(tmp_path: Path) -> None:
    task = read_dataset("emoji", languages=["zh"])
    path = tmp_path / "a.npz"
    np.savez(path, **some())
    with pytest.raises(UserError, match=r"lacks 400 of 400 images, the first is '\w+ on \w+'"):
        vectors_of(str(path), task)
    vectors = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    np.savez(path, **{**some(), "images": np.array(task.ids), "img_embedding": vectors})
    with pytest.raises(UserError, match="lacks 400 of 400 texts, the first is"):
        measure("other", vectors_of(str(path), task), task)
