from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.classification import class_names, read_classification
from altdiffusion_clip.evaluation.zeroshot import CIFAR10, TEMPLATES, class_vectors, zero_shot


def random_task(seed: int, classes: int, images: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, 16)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    # Some classes are rare, and one does not occur.
    labels = (generator.integers(classes - 1, size=images) * generator.integers(2, size=images)).astype(np.int64)
    vectors = centres[labels] + 0.35 * generator.normal(size=(images, 16)).astype(np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), centres, labels


@pytest.mark.parametrize("classes", [4, 5, 12])
@pytest.mark.parametrize("seed", range(3))
def test_as_clip_benchmark_counts(seed: int, classes: int) -> None:
    """Top-k accuracy and balanced accuracy, image by image."""
    images, centres, labels = random_task(seed, classes)
    ours = zero_shot(images, centres, labels, batch_size=37)
    first, five = 0, 0
    right_of: dict[int, list[bool]] = {}
    for vector, label in zip(images, labels.tolist(), strict=True):
        logits = 100 * centres @ vector
        order = sorted(range(classes), key=lambda c: logits[c], reverse=True)
        first += order[0] == label
        five += label in order[:5]
        right_of.setdefault(label, []).append(order[0] == label)
    assert ours.top1 == pytest.approx(100 * first / len(labels))
    assert ours.top5 == (None if classes < 5 else pytest.approx(100 * five / len(labels)))
    recalls = [sum(found) / len(found) for found in right_of.values()]
    assert ours.mean_per_class_recall == pytest.approx(100 * sum(recalls) / len(recalls))
    assert ours.confusion.sum() == len(labels)
    assert ours.confusion.trace() == first


def test_of_equal_cosines_the_first_counts() -> None:
    classes = np.repeat(np.eye(1, 4, dtype=np.float32), 7, axis=0)
    images = np.repeat(np.eye(1, 4, dtype=np.float32), 7, axis=0)
    result = zero_shot(images, classes, np.arange(7))
    assert result.top1 == pytest.approx(100 / 7)
    assert result.top5 == pytest.approx(500 / 7)


def test_a_class_is_the_mean_of_its_sentences() -> None:
    vectors = {"a cat": [1.0, 0.0], "the cat": [0.0, 1.0], "a dog": [1.0, 0.0], "the dog": [1.0, 0.0]}
    result = class_vectors(
        lambda texts: np.array([vectors[t] for t in texts], np.float32), ["cat", "dog"], ["a {c}", "the {c}"]
    )
    np.testing.assert_allclose(result, [[0.5**0.5, 0.5**0.5], [1, 0]], atol=1e-6)


def test_our_templates_name_the_class() -> None:
    assert all("{c}" in template for templates in TEMPLATES.values() for template in templates)
    assert all(len(names) == 10 for names in CIFAR10.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.empty((0, 16), np.float32)}, "no images"),
        ({"classes": np.ones((3, 15), np.float32)}, "16 numbers and classes of 15"),
        ({"images": np.full((2, 16), np.nan, np.float32)}, "not finite"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    images, classes, labels = random_task(0, 4)
    given = {"images": images, "classes": classes, "labels": labels, **change}
    with pytest.raises(ValueError, match=message):
        zero_shot(**given)


def test_wordnets_numbers_are_no_names(tmp_path: Path) -> None:
    for folder in ("n01440764", "n01443537"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / folder / "1.png")
    task = read_classification(tmp_path)
    with pytest.raises(UserError, match=r"named by WordNet's numbers \(n01440764\).* to classnames.txt"):
        class_names(task, "en")
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\n")
    assert class_names(task, "en") == ["tench", "goldfish"]
