import pytest
import torch

from altdiffusion_clip.evaluation.retrieval import recall_at, retrieval


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
        (torch.zeros(2, 2), torch.tensor([[True, False], [True, False]]), "needs a relevant"),
    ],
)
def test_bad_input(similarity: torch.Tensor, relevant: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval(similarity, relevant)
