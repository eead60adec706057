"""Zero-shot classification: a class is the mean embedding of its name in several sentences (CLIP, arXiv 2103.00020).

The figures are CLIP_benchmark's: top-1, top-5 (with at least five classes), and mean recall per class, which is
scikit-learn's balanced accuracy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TEMPLATES = {
    "en": ("{c}", "a photo of a {c}", "a picture of a {c}", "a photo of the {c}", "a small {c}", "a large {c}"),
    "zh": ("{c}", "{c}的照片", "一张{c}的照片", "一张{c}的图片", "这是{c}", "小小的{c}", "大大的{c}"),
}
"""Built-in templates. Other languages use the bare name unless the user gives templates."""

CIFAR10 = {
    "en": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "zh": ("飞机", "汽车", "鸟", "猫", "鹿", "狗", "青蛙", "马", "船", "卡车"),
}
"""Names of CIFAR-10's classes in the order of its labels."""


@dataclass(frozen=True)
class ZeroShot:
    """Figures in percent.

    Attributes:
        top1: the class with the highest cosine is right.
        top5: the right class is among the five highest; None with fewer than five classes.
        mean_per_class_recall: the share of right images, averaged over the classes that occur.
        confusion: int64 (classes, classes), images by true class (rows) and predicted class (columns).
    """

    top1: float
    top5: float | None
    mean_per_class_recall: float
    confusion: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """The three figures, rounded to two decimals."""
        top5 = None if self.top5 is None else round(self.top5, 2)
        return {
            "top1": round(self.top1, 2),
            "top5": top5,
            "mean_per_class_recall": round(self.mean_per_class_recall, 2),
        }


def class_vectors(encode: Callable[[Sequence[str]], Any], names: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    """A unit vector per class: the normalised mean of the unit vectors of its sentences.

    Args:
        encode: maps texts to unit vectors, float32 (texts, dim).
        names: of the classes.
        templates: sentences with {c} in place of the name.

    Returns:
        float32 (classes, dim).
    """
    texts = [template.replace("{c}", name) for name in names for template in templates]
    vectors = np.asarray(encode(texts)).reshape(len(names), len(templates), -1).mean(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def zero_shot(images: np.ndarray, classes: np.ndarray, labels: np.ndarray, batch_size: int = 8192) -> ZeroShot:
    """Classifies by the highest cosine. Of equal ones, the first counts.

    Args:
        images: float (images, dim), unit vectors.
        classes: float (classes, dim), unit vectors.
        labels: int64 (images,), indices into `classes`.
        batch_size: images at a time.

    Raises:
        ValueError: there are no images, the widths differ, or something is not finite.

    Example:
        >>> vectors = np.eye(3, dtype=np.float32)
        >>> zero_shot(vectors, vectors, np.array([0, 1, 0])).as_dict()
        {'top1': 66.67, 'top5': None, 'mean_per_class_recall': 75.0}
    """
    if not len(images):
        raise ValueError("there are no images")
    if images.shape[1] != classes.shape[1]:
        raise ValueError(f"images have vectors of {images.shape[1]} numbers and classes of {classes.shape[1]}")
    if not (np.isfinite(images).all() and np.isfinite(classes).all()):
        raise ValueError("a vector is not finite; leave broken images out")
    count = len(classes)
    confusion = np.zeros((count, count), np.int64)
    among_five = 0
    for start in range(0, len(images), batch_size):
        cosines = images[start : start + batch_size] @ classes.T
        right = labels[start : start + batch_size]
        np.add.at(confusion, (right, cosines.argmax(1)), 1)
        own = np.take_along_axis(cosines, right[:, None], 1)
        before = (cosines > own).sum(1) + ((cosines == own) & (np.arange(count) < right[:, None])).sum(1)
        among_five += int((before < 5).sum())
    of_class = confusion.sum(1)
    recall = confusion.diagonal()[of_class > 0] / of_class[of_class > 0]
    return ZeroShot(
        float(100 * confusion.trace() / len(images)),
        100 * among_five / len(images) if count >= 5 else None,
        float(100 * recall.mean()),
        confusion,
    )
