from collections.abc import Callable

import numpy as np
import pytest
import torch

from altdiffusion_clip.evaluation.ranks import TIES, ranks_of_embeddings, ranks_of_similarity
from altdiffusion_clip.evaluation.retrieval import (
    KS,
    intervals,
    recall_at,
    retrieval,
    retrieval_of_embeddings,
    retrieval_of_ranks,
)


def test_recalls_of_a_known_matrix() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.4, 0.3], [0.1, 0.2, 0.15]])
    relevant = torch.eye(3, dtype=torch.bool)
    assert recall_at(similarity, relevant, 1) == pytest.approx(100 / 3)
    assert recall_at(similarity, relevant, 2) == pytest.approx(100)
    result = retrieval(similarity, relevant)
    assert result.text_to_image_r1 == pytest.approx(100 / 3)
    assert result.image_to_text_r1 == pytest.approx(200 / 3)
    assert result.mr == pytest.approx((100 / 3 + 200 / 3 + 400) / 6)


def test_several_relevant_columns_count_by_the_best() -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.5]])
    assert recall_at(similarity, torch.tensor([[True, True, False]]), 1) == 100
    assert recall_at(similarity, torch.tensor([[True, False, False]]), 2) == 0


def test_a_constant_similarity_does_not_score() -> None:
    assert recall_at(torch.zeros(50, 50), torch.eye(50, dtype=torch.bool), 10) == 0


def test_against_a_plain_loop() -> None:
    torch.manual_seed(0)
    similarity = torch.randn(40, 30)
    relevant = torch.rand(40, 30) < 0.1
    relevant[:, 0] = True
    for k in (1, 5, 10):
        hits = sum(bool(relevant[i, similarity[i].topk(k).indices].any()) for i in range(40))
        assert recall_at(similarity, relevant, k) == pytest.approx(100 * hits / 40)


@pytest.mark.parametrize(
    ("similarity", "relevant", "message"),
    [
        (torch.zeros(2, 3), torch.ones(3, 2, dtype=torch.bool), r"\(2, 3\)"),
        (torch.full((2, 2), torch.nan), torch.eye(2, dtype=torch.bool), "not finite"),
        (torch.zeros(2, 2), torch.tensor([[True, False], [True, False]]), "image 1 has no text"),
    ],
)
def test_bad_input(similarity: torch.Tensor, relevant: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval(similarity, relevant)


def sorted_recall(scores: list[list[float]], relevant: list[set[int]], k: int) -> float:
    """Chinese-CLIP's evaluation, in its own steps: a stable sort, then whether any right one is in front."""
    found = 0
    for row, right in zip(scores, relevant, strict=True):
        order = sorted(range(len(row)), key=lambda column: row[column], reverse=True)
        found += any(column in order[:k] for column in right)
    return 100 * found / len(scores)


def top_k_recall(scores: list[list[float]], relevant: list[set[int]], k: int) -> float:
    """CLIP_benchmark's: true positives among the top k as a share of the positives, and whether that is above 0."""
    shares = []
    for row, right in zip(scores, relevant, strict=True):
        top = np.argpartition(-np.array(row), k - 1)[:k]
        shares.append(len(right & set(top.tolist())) / len(right))
    return 100 * sum(share > 0 for share in shares) / len(shares)


def random_task(seed: int, levels: int | None) -> tuple[torch.Tensor, np.ndarray]:
    """60 images with one to five captions each, some captions true of two; similarities of few levels tie."""
    generator = np.random.default_rng(seed)
    texts = [(image, text) for image in range(60) for text in range(generator.integers(1, 6))]
    pairs = [(row, image) for row, (image, _) in enumerate(texts)]
    pairs += [(row, int(generator.integers(60))) for row in range(0, len(texts), 10)]
    pairs = sorted(set(pairs))
    similarity = generator.normal(size=(len(texts), 60))
    for text, image in pairs:
        similarity[text, image] += 1.5
    if levels:
        similarity = np.round(similarity * levels / 4)
    return torch.from_numpy(similarity.astype(np.float32)), np.array(pairs)


def expected(similarity: torch.Tensor, pairs: np.ndarray, recall: Callable[..., float]) -> list[float]:
    figures = []
    for scores, sides in ((similarity, pairs), (similarity.T, pairs[:, ::-1])):
        relevant = [set(sides[sides[:, 0] == row, 1].tolist()) for row in range(len(scores))]
        figures += [recall(scores.tolist(), relevant, k) for k in KS]
    return figures


@pytest.mark.parametrize("seed", range(5))
def test_as_clip_benchmark_and_chinese_clip_count(seed: int) -> None:
    similarity, pairs = random_task(seed, levels=None)
    for recall in (sorted_recall, top_k_recall):
        figures = expected(similarity, pairs, recall)
        for ties in TIES:
            ours = retrieval_of_ranks(ranks_of_similarity(similarity, pairs, ties=ties))
            assert list(ours.as_dict().values())[:6] == pytest.approx(figures, abs=1e-9)
            assert ours.mr == pytest.approx(np.mean(figures))


@pytest.mark.parametrize("levels", [2, 5, 20])
def test_ties_as_chinese_clip_sorts_them(levels: int) -> None:
    similarity, pairs = random_task(7, levels)
    ours = retrieval_of_ranks(ranks_of_similarity(similarity, pairs, ties="first"))
    assert list(ours.as_dict().values())[:6] == pytest.approx(expected(similarity, pairs, sorted_recall), abs=1e-9)


@pytest.mark.parametrize("levels", [2, 5, 20])
def test_whatever_order_top_k_gives_ties_lies_between_worst_and_best(levels: int) -> None:
    """torch.topk, which CLIP_benchmark takes, leaves the order of ties open."""
    similarity, pairs = random_task(8, levels)
    figures = expected(similarity, pairs, top_k_recall)
    worst, mean, best = (
        list(retrieval_of_ranks(ranks_of_similarity(similarity, pairs, ties=ties)).as_dict().values())[:6]
        for ties in ("worst", "mean", "best")
    )
    assert all(a <= b <= c for a, b, c in zip(worst, figures, best, strict=True))
    assert all(a <= b <= c for a, b, c in zip(worst, mean, best, strict=True))
    assert sum(worst) < sum(best)


def unit(rows: int, dim: int, generator: np.random.Generator) -> np.ndarray:
    vectors = generator.normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def embedded_task() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """150 images, every tenth shown twice, and 450 captions near them."""
    generator = np.random.default_rng(0)
    images = unit(150, 32, generator)
    images[5::10] = images[::10]
    texts = np.repeat(images, 3, axis=0) + 0.8 * unit(450, 32, generator)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return texts, images, np.array([(row, row // 3) for row in range(450)])


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("tile", [(1024, 4096), (64, 32), (7, 150), (450, 1)])
def test_tiles_count_what_the_whole_matrix_does(tile: tuple[int, int], ties: str) -> None:
    texts, images, pairs = embedded_task()
    # In double precision, so that pictures that are there twice tie exactly.
    similarity = torch.from_numpy((texts.astype(np.float64) @ images.T.astype(np.float64)).round(6))
    whole = ranks_of_similarity(similarity, pairs, ties=ties)
    tiled = ranks_of_embeddings(texts, images, pairs, ties=ties, tile=tile)
    np.testing.assert_array_equal(tiled.of_texts, whole.of_texts)
    np.testing.assert_array_equal(tiled.of_images, whole.of_images)


def test_embeddings_may_lie_in_a_file_and_in_half_precision(tmp_path) -> None:
    texts, images, pairs = embedded_task()
    np.save(tmp_path / "texts.npy", texts)
    on_disk = np.load(tmp_path / "texts.npy", mmap_mode="r")
    expected_figures, _ = retrieval_of_embeddings(texts, images, pairs)
    figures, _ = retrieval_of_embeddings(on_disk, torch.from_numpy(images), pairs)
    assert figures == expected_figures
    halves, _ = retrieval_of_embeddings(texts.astype(np.float16), images.astype(np.float16), pairs)
    assert halves.mr == pytest.approx(figures.mr, abs=1.0)


def test_intervals_hold_the_figure_and_shrink_with_the_images() -> None:
    texts, images, pairs = embedded_task()
    figures, all_intervals = retrieval_of_embeddings(texts, images, pairs)
    assert list(all_intervals) == list(figures.as_dict())
    for name, value in figures.as_dict().items():
        low, high = all_intervals[name]
        assert low <= value <= high, name
    few = pairs[pairs[:, 1] < 40]
    ranks = ranks_of_embeddings(texts[: len(few)], images[:40], few)
    low, high = intervals(ranks, few)["text_to_image_r1"]
    assert high - low > all_intervals["text_to_image_r1"][1] - all_intervals["text_to_image_r1"][0]


def test_an_interval_is_that_of_the_images_and_not_of_the_captions() -> None:
    """All five captions of an image are found or none is: as few independent observations as there are images."""
    found = np.repeat(np.arange(100) % 2, 5)
    pairs = np.array([(row, row // 5) for row in range(500)])
    ranks = ranks_of_similarity(torch.eye(100).repeat_interleave(5, 0), pairs)
    ranks = type(ranks)(np.where(found == 1, 1.0, np.inf), ranks.of_images, 10)
    low, high = intervals(ranks, pairs)["text_to_image_r1"]
    # Of 100 coins the middle 95% are 40 to 60; of 500 they were 46 to 54.
    assert 38 <= low <= 42
    assert 58 <= high <= 62


def test_vectors_of_two_widths_and_of_nan() -> None:
    texts, images, pairs = embedded_task()
    with pytest.raises(ValueError, match="texts have vectors of 32 numbers and images of 31"):
        ranks_of_embeddings(texts, images[:, :31], pairs)
    images[3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        ranks_of_embeddings(texts, images, pairs)
    with pytest.raises(ValueError, match="choose one of mean, first, best, worst"):
        ranks_of_embeddings(texts, images, pairs, ties="none")


def test_an_image_without_a_text_is_a_candidate_only() -> None:
    """As in MUGE, whose texts are searched among all images."""
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.5, 0.8]])
    ranks = ranks_of_similarity(similarity, np.array([[0, 0], [1, 1]]))
    np.testing.assert_array_equal(ranks.of_texts, [1, 2])
    np.testing.assert_array_equal(ranks.of_images, [1, 1, np.nan])
    figures = retrieval_of_ranks(ranks)
    assert (figures.text_to_image_r1, figures.image_to_text_r1) == (50, 100)
    assert intervals(ranks, np.array([[0, 0], [1, 1]]))["image_to_text_r1"] == (100, 100)
    with pytest.raises(ValueError, match="text 1 has no image"):
        ranks_of_similarity(similarity, np.array([[0, 0]]))
