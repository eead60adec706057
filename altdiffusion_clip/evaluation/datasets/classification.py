"""Labelled pictures: a folder per class, the hub's Parquet files, or CLIP_benchmark's webdataset tars."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.evaluation.datasets import webdataset
from altdiffusion_clip.evaluation.datasets.stored import tar_samples
from altdiffusion_clip.evaluation.datasets.text_files import lines
from altdiffusion_clip.evaluation.zeroshot import CIFAR10, TEMPLATES
from altdiffusion_clip.images import SUFFIXES
from altdiffusion_clip.sources.parquet import InParquet
from altdiffusion_clip.sources.pictures import Located, StoredImage
from altdiffusion_clip.sources.tars import picture_among

WHERE = (
    "a folder of pictures for each class (ImageNet's validation set sorted by class), Parquet files with columns image "
    "and label (CIFAR-10 and ImageNet on the hub), or test/0.tar and so on (clip-benchmark/wds_* on the hub)"
)
_PICTURE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "jpg", "png", "webp"), ("label", "labels", "fine_label", "cls")

SYNSET = re.compile(r"n\d{8}")
"""The name of an ImageNet class folder."""


@dataclass(frozen=True)
class ClassificationTask:
    """Labelled pictures.

    Attributes:
        name: of the data set.
        images: pictures.
        labels: int64 (images,), from 0.
        folders: the data's own names of the classes in the order of the labels; empty if it has none.
        place: the folder, which may have files with class names.
    """

    name: str
    images: list[StoredImage]
    labels: np.ndarray
    folders: list[str]
    place: Path


def read_classification(folder: Path, split: str = "") -> ClassificationTask:
    """Reads labelled pictures in any of the three layouts.

    Args:
        folder: of the data set.
        split: "test", "validation", ...; empty for whatever exists.

    Raises:
        UserError: the folder has none of the layouts, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; {WHERE}")
    files = _parquet_files(folder, split)
    if files:
        images, labels, names = _from_parquet(files)
    elif list((folder / (split or "test")).glob("*.tar")):
        images, labels = _from_tars(folder, split or "test")
        names = []
    else:
        images, labels, names = _from_folders(folder, split)
    if not images:
        raise UserError(f"{folder} has no labelled pictures; {WHERE}")
    return ClassificationTask(folder.name, images, np.array(labels), names, folder)


def class_names(task: ClassificationTask, language: str, given: Path | None = None) -> list[str]:
    """The names of the classes in a language, in the order of the labels.

    They come from the given file, or from `classnames_CODE.txt` (in English also `classnames.txt`) in the data set's
    folder, one name per line. CIFAR-10's are built in. In English, the data's own names are used otherwise.

    Raises:
        UserError: there are no names, or not as many as labels.
    """
    places = [given] if given else [task.place / f"classnames_{language}.txt"]
    if language == "en" and not given:
        places.append(task.place / "classnames.txt")
    found = next((path for path in places if path.is_file()), None)
    known = [name.replace("_", " ").lower() for name in task.folders]
    if found is not None:
        names = [line.strip() for line in lines(found) if line.strip()]
    elif known == list(CIFAR10["en"]) and language in CIFAR10:
        names = list(CIFAR10[language])
    elif given:
        raise UserError(f"there is no {given}; write a class name a line, in the order of the labels")
    elif language == "en" and any(SYNSET.fullmatch(name) for name in task.folders):
        raise UserError(
            f"the classes of {task.place} are named by WordNet's numbers ({task.folders[0]}), which are no words; "
            f"write their names, one a line in the order of the folders, to {places[-1].name}"
        )
    elif language == "en" and known:
        names = [name.replace("_", " ") for name in task.folders]
    else:
        raise UserError(
            f"{task.place} has no names of its classes in {language}; write one a line to {places[0].name}, in the "
            "order of the labels"
        )
    needed = max(int(task.labels.max()) + 1, len(task.folders))
    if len(names) != needed:
        raise UserError(f"there are {needed} classes and {len(names)} names in {language}")
    return names


def templates_of(task: ClassificationTask, language: str, given: Path | None = None) -> list[str]:
    """The templates for class names: from a file, from the data set's folder, or built in.

    Raises:
        UserError: a template has no {c}.
    """
    beside = task.place / "zeroshot_classification_templates.txt"
    path = given or (beside if language == "en" and beside.is_file() else None)
    if path is None:
        return list(TEMPLATES.get(language, ("{c}",)))
    templates = [line for line in lines(path) if line.strip()]
    bad = next((template for template in templates if "{c}" not in template), None)
    if bad is not None or not templates:
        raise UserError(f"{path}: a template must say where the name goes, as in 'a photo of a {{c}}': {bad!r}")
    return templates


def _from_folders(folder: Path, split: str) -> tuple[list[StoredImage], list[int], list[str]]:
    place = folder / split if split else next((p for n in ("test", "val") if (p := folder / n).is_dir()), folder)
    if not place.is_dir():
        raise UserError(f"there is no folder {place}; {WHERE}")
    names = sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    images: list[StoredImage] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for path in sorted((place / name).rglob("*")):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                images.append(Located(str(path)))
                labels.append(label)
    return images, labels, names


def _from_tars(folder: Path, split: str) -> tuple[list[StoredImage], list[int]]:
    images: list[StoredImage] = []
    labels: list[int] = []
    for shard in webdataset.shards(folder, split):
        for sample in tar_samples(shard):
            picture, label = picture_among(sample), sample.get("cls")
            name = next(iter(sample.values())).key
            if picture is None or label is None:
                raise UserError(f"{shard}: the sample of {name} has no {'picture' if picture is None else '.cls'}")
            images.append(picture)
            labels.append(_label(label.read(), label.name))
    return images, labels


def _label(data: bytes, name: str) -> int:
    try:
        label = int(data)
    except ValueError:
        raise UserError(f"{name}: a number of a class is expected, not {data[:20]!r}") from None
    if label < 0:
        raise UserError(f"{name}: the label is {label}; labels begin with 0 (hidden ones are often -1)")
    return label


def _parquet_files(folder: Path, split: str) -> list[Path]:
    for place in (folder, folder / "data", folder / "plain_text"):
        files = sorted(place.glob("*.parquet"))
        wanted = [split] if split else ["test", "validation", "val", ""]
        for name in wanted:
            chosen = [path for path in files if path.name.startswith(name)]
            if chosen:
                return chosen
    return []


def _from_parquet(files: Sequence[Path]) -> tuple[list[StoredImage], list[int], list[str]]:
    images: list[StoredImage] = []
    labels: list[int] = []
    names: list[str] = []
    for path, parquet, columns in _opened(files):
        picture = next((name for name in _PICTURE_COLUMNS if name in columns), None)
        label = next((name for name in _LABEL_COLUMNS if name in columns), None)
        if picture is None or label is None:
            raise UserError(f"{path} has the columns {', '.join(columns)}; an image and a label are expected")
        names = names or _names_in_schema(parquet.schema_arrow.metadata, label)
        for group in range(parquet.num_row_groups):
            values = parquet.read_row_group(group, [label]).column(0).to_pylist()
            labels += [_label(str(value).encode(), str(path)) for value in values]
            images += [InParquet(str(path), group, row, picture) for row in range(len(values))]
    return images, labels, names


def _opened(files: Sequence[Path]) -> Iterator[tuple[Path, Any, list[str]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("Parquet files need pyarrow; pip install pyarrow") from None
    for path in files:
        try:
            parquet = pyarrow.parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{path} cannot be read: {one_line(error)}") from error
        yield path, parquet, parquet.schema_arrow.names


def _names_in_schema(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """The class names that the `datasets` library stores in a file's schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return []
