"""Several judges as one."""

import numpy as np
import pytest
import torch

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.ensembles import Ensemble, Panel, ranks, zscores
from altdiffusion_clip.judges.functions import FunctionJudge
from altdiffusion_clip.judges.names import load_judge


def judges(count: int) -> list[FunctionJudge]:
    return [FunctionJudge(lambda texts, pictures: [0.0] * len(texts), f"judge {place}") for place in range(count)]


def test_ranks_against_counting() -> None:
    scores = torch.randint(0, 5, (3, 20), generator=torch.Generator().manual_seed(0)).float()
    expected = []
    for row in scores.numpy():
        better, equal = (row[None] > row[:, None]).sum(1), (row[None] == row[:, None]).sum(1)
        expected.append(better + (1 + equal) / 2)
    np.testing.assert_allclose(ranks(scores).numpy(), -np.mean(expected, 0), rtol=1e-6)


def test_zscores_have_mean_0_and_a_judge_that_says_the_same_of_all_has_no_say() -> None:
    scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [100.0]])
    assert zscores(scores).mean().abs() < 1e-5
    scores[1] = 3.0
    assert zscores(scores).argmax() == scores[0].argmax()


def test_logits_are_those_of_the_product_of_probabilities() -> None:
    one, other = load_judge("emoji-m18"), load_judge("emoji-m18/teacher")
    cosines = torch.rand(2, 5)
    product = torch.stack([one.probability(cosines[0]), other.probability(cosines[1])]).log().mean(0).softmax(0)
    ensemble = Ensemble((one, other), "logits")
    torch.testing.assert_close(ensemble.probability(ensemble.combine(cosines)), product)


def test_a_picture_without_a_score_has_no_part_in_those_of_the_others() -> None:
    members = judges(2)
    panel = Panel([*members, Ensemble(tuple(members), "ranks", "both")])
    scores = torch.tensor([[0.1, torch.nan, 0.3], [5.0, 9.0, 1.0]])
    combined = panel.combine(scores)
    assert combined[:, 1].isnan().all()
    torch.testing.assert_close(combined[:, [0, 2]], panel.combine(scores[:, [0, 2]]))


def test_a_panel_has_each_member_once_and_says_what_it_is() -> None:
    one, two = judges(2)
    panel = Panel([one, Ensemble((two, one), "zscores", "both")])
    assert panel.members == (one, two)
    assert not panel.is_by_row
    assert [each["name"] for each in panel.describe()] == ["judge 0", "both"]
    with pytest.raises(UserError, match="no rule 'median'"):
        Ensemble((one, two), "median")
