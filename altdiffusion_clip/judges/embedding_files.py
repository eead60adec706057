"""Files of embeddings, written by `altdiffusion embed`, or by systems that run elsewhere and are to be measured.

A file has vectors of pictures by id, and vectors of texts by the text itself:

=========== ============== ====================================================================================
`.npz`      `.safetensors` `.parquet`
=========== ============== ====================================================================================
images      metadata       rows with kind "image": their `id`
img_embedding tensor       and `embedding`, a list of floats
texts       metadata       rows with kind "text": the text as `id`
text_embedding tensor      and `embedding`
logit_scale metadata       metadata
fingerprint metadata       metadata: of the judge; may be missing
=========== ============== ====================================================================================

The names follow ModelScope's CLIP pipelines.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.files import atomic_path

SUFFIXES = (".npz", ".safetensors", ".parquet")


@dataclass(frozen=True)
class Embeddings:
    """Vectors of pictures and texts in one space.

    Attributes:
        images: ids.
        img_embedding: float32 (images, dim), unit vectors.
        texts: the texts.
        text_embedding: float32 (texts, dim), unit vectors.
        logit_scale: factor of cosines in a softmax: 1 / temperature.
        fingerprint: of the judge that made them; empty if unknown.
        pairs: int32 (pairs, 2), indices into `images` and `texts` of what belongs together; only in .safetensors.
        languages: of each pair's text; empty if unknown.
        rows: ids of the data set's rows that the pairs come from.
    """

    images: list[str]
    img_embedding: np.ndarray
    texts: list[str]
    text_embedding: np.ndarray
    logit_scale: float = 100.0
    fingerprint: str = ""
    pairs: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int32))
    languages: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    def joined(self, other: Self) -> Self:
        """The embeddings of both. If both have one, this file's is used."""
        images, texts = set(self.images), set(self.texts)
        all_images = {key: place for place, key in enumerate(dict.fromkeys([*self.images, *other.images]))}
        all_texts = {key: place for place, key in enumerate(dict.fromkeys([*self.texts, *other.texts]))}
        moved = [[all_images[other.images[image]], all_texts[other.texts[text]]] for image, text in other.pairs]
        more_images = [place for place, key in enumerate(other.images) if key not in images]
        more_texts = [place for place, key in enumerate(other.texts) if key not in texts]
        return replace(
            self,
            images=[*self.images, *(other.images[place] for place in more_images)],
            img_embedding=np.concatenate([self.img_embedding, other.img_embedding[more_images]]),
            texts=[*self.texts, *(other.texts[place] for place in more_texts)],
            text_embedding=np.concatenate([self.text_embedding, other.text_embedding[more_texts]]),
            pairs=np.concatenate([self.pairs, np.array(moved, np.int32).reshape(-1, 2)]),
            languages=[*self.languages, *other.languages],
            rows=[*self.rows, *other.rows],
        )

    def images_of(self, ids: Sequence[str], file: Path) -> np.ndarray:
        """The vectors of some pictures, in order.

        Raises:
            UserError: one is missing.
        """
        return _rows(self.images, self.img_embedding, ids, "image", file)

    def texts_of(self, texts: Sequence[str], file: Path) -> np.ndarray:
        """The vectors of some texts, in order.

        Raises:
            UserError: one is missing.
        """
        return _rows(self.texts, self.text_embedding, texts, "text", file)


def _rows(keys: list[str], vectors: np.ndarray, wanted: Sequence[str], what: str, file: Path) -> np.ndarray:
    places = {key: place for place, key in enumerate(keys)}
    missing = [key for key in wanted if key not in places]
    if missing:
        raise UserError(f"{file} lacks {len(missing)} of {len(wanted)} {what}s, the first is {missing[0]!r}")
    return vectors[[places[key] for key in wanted]]


def write_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Writes a file completely or not at all. Its suffix decides the format.

    Raises:
        UserError: the suffix is not one of `SUFFIXES`, or pyarrow is not installed.
    """
    check_suffix(path)
    names: dict[str, Any] = {"images": embeddings.images, "texts": embeddings.texts}
    vectors: dict[str, Any] = {"img_embedding": embeddings.img_embedding, "text_embedding": embeddings.text_embedding}
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = {key: np.array(value, dtype=np.str_) for key, value in names.items()}
            arrays |= {"logit_scale": np.float32(embeddings.logit_scale)}
            arrays |= {"fingerprint": np.str_(embeddings.fingerprint)}
            np.savez(temporary, **arrays, **vectors)
        elif path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in names.items()}
            contiguous = {key: np.ascontiguousarray(value) for key, value in vectors.items()}
            if len(embeddings.pairs):
                contiguous["pairs"] = np.ascontiguousarray(embeddings.pairs, np.int32)
                metadata["languages"] = json.dumps(embeddings.languages)
                metadata["rows"] = json.dumps(embeddings.rows, ensure_ascii=False)
            save_file(contiguous, temporary, {**metadata, **_metadata(embeddings)})
        else:
            _write_parquet(temporary, embeddings)


def _write_parquet(path: Path, embeddings: Embeddings) -> None:
    pyarrow, parquet = _pyarrow(path)
    kinds = ["image"] * len(embeddings.images) + ["text"] * len(embeddings.texts)
    rows = [*embeddings.img_embedding.tolist(), *embeddings.text_embedding.tolist()]
    table = pyarrow.table(
        {
            "kind": kinds,
            "id": [*embeddings.images, *embeddings.texts],
            "embedding": pyarrow.array(rows, pyarrow.list_(pyarrow.float32())),
        }
    )
    parquet.write_table(table.replace_schema_metadata(_metadata(embeddings)), path)


def _metadata(embeddings: Embeddings) -> dict[str, str]:
    return {"logit_scale": repr(embeddings.logit_scale), "fingerprint": embeddings.fingerprint}


def read_embeddings(path: Path) -> Embeddings:
    """Reads a file.

    Raises:
        UserError: it does not exist, is damaged, has another format, or its pictures and texts have different widths.
    """
    check_suffix(path)
    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        embeddings = {".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}[path.suffix](
            path
        )
    except UserError:
        raise
    except Exception as error:  # three libraries, each with its own errors
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error
    return _checked(embeddings, path)


def _read_npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as file:
        lacking = [name for name in ("images", "img_embedding", "texts", "text_embedding") if name not in file]
        if lacking:
            raise UserError(f"{path} has no {lacking[0]}; see altdiffusion embed --help for the form")
        scale = float(file["logit_scale"]) if "logit_scale" in file else 100.0
        return Embeddings(
            [str(key) for key in file["images"]],
            file["img_embedding"],
            [str(text) for text in file["texts"]],
            file["text_embedding"],
            scale,
            str(file["fingerprint"]) if "fingerprint" in file else "",
        )


def _read_safetensors(path: Path) -> Embeddings:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        lacking = [name for name in ("images", "texts") if name not in metadata]
        tensors = list(file.keys())
        lacking += [name for name in ("img_embedding", "text_embedding") if name not in tensors]
        if lacking:
            raise UserError(f"{path} has no {lacking[0]}; see altdiffusion embed --help for the form")
        return Embeddings(
            json.loads(metadata["images"]),
            file.get_tensor("img_embedding"),
            json.loads(metadata["texts"]),
            file.get_tensor("text_embedding"),
            float(metadata.get("logit_scale", 100.0)),
            metadata.get("fingerprint", ""),
            file.get_tensor("pairs") if "pairs" in tensors else np.empty((0, 2), np.int32),
            json.loads(metadata.get("languages", "[]")),
            json.loads(metadata.get("rows", "[]")),
        )


def _read_parquet(path: Path) -> Embeddings:
    _, parquet = _pyarrow(path)
    table = parquet.read_table(path)
    lacking = [name for name in ("kind", "id", "embedding") if name not in table.column_names]
    if lacking:
        raise UserError(f"{path} has no column {lacking[0]}; see altdiffusion embed --help for the form")
    kinds, keys = table["kind"].to_pylist(), table["id"].to_pylist()
    rows = table["embedding"].to_pylist()
    if len({len(row) for row in rows}) > 1:
        widths = sorted({len(row) for row in rows})
        raise UserError(f"{path} has vectors of {widths[0]} and of {widths[-1]} numbers")
    of = {kind: [place for place, k in enumerate(kinds) if k == kind] for kind in ("image", "text")}
    vectors = {kind: np.array([rows[place] for place in places], np.float32) for kind, places in of.items()}
    metadata = table.schema.metadata or {}
    return Embeddings(
        [keys[place] for place in of["image"]],
        vectors["image"],
        [keys[place] for place in of["text"]],
        vectors["text"],
        float(metadata.get(b"logit_scale", b"100.0")),
        metadata.get(b"fingerprint", b"").decode(),
    )


def _checked(embeddings: Embeddings, path: Path) -> Embeddings:
    sides = (
        ("images", embeddings.images, embeddings.img_embedding),
        ("texts", embeddings.texts, embeddings.text_embedding),
    )
    unit = {}
    for what, keys, vectors in sides:
        if not np.issubdtype(vectors.dtype, np.floating) or (vectors.ndim != 2 and len(keys)):
            raise UserError(
                f"{path}: the vectors of {what} have the shape {vectors.shape}; (number, width) is expected"
            )
        if len(keys) != len(vectors):
            raise UserError(f"{path} names {len(keys)} {what} and has {len(vectors)} vectors of them")
        if len(set(keys)) != len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{path} has {twice!r} twice among its {what}")
        if not np.isfinite(vectors).all():
            raise UserError(f"{path}: a vector of {what} is not finite")
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=-1, keepdims=True)
        if (lengths == 0).any():
            raise UserError(f"{path}: a vector of {what} is all zeros")
        unit[what] = vectors.astype(np.float32) / lengths
    if len(embeddings.images) and len(embeddings.texts) and unit["images"].shape[1] != unit["texts"].shape[1]:
        raise UserError(
            f"{path} has vectors of {unit['images'].shape[1]} numbers for images and {unit['texts'].shape[1]} for texts"
        )
    return replace(embeddings, img_embedding=unit["images"], text_embedding=unit["texts"])


def check_suffix(path: Path) -> None:
    """Rejects names with an unknown suffix.

    Raises:
        UserError: the suffix is not one of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the name must end in {', '.join(SUFFIXES)}")


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path.suffix} files need pyarrow; pip install pyarrow, or write .npz") from None
    return pyarrow, pyarrow.parquet
