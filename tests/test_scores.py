"""What is a score and what is not, decided once."""

import math

import pytest
import torch

from altdiffusion_clip.images import BrokenImage
from altdiffusion_clip.scores import NOT_A_NUMBER, Scores, ranked, without_score

NAMES = ["a.png", "b.png", "c.png", "d.png"]


def test_nan_and_infinity_have_no_rank() -> None:
    cosine = torch.tensor([0.1, math.nan, math.inf, 0.3])
    scores = Scores(cosine, without_score(cosine, [], NAMES))
    ranking = ranked(scores, NAMES, logit_scale=10.0)
    assert [image.name for image in ranking] == ["d.png", "a.png"]
    assert [image.rank for image in ranking] == [1, 2]
    assert sum(image.probability for image in ranking) == pytest.approx(1.0)
    assert [(image.index, image.reason) for image in ranking.broken] == [(1, NOT_A_NUMBER), (2, NOT_A_NUMBER)]


def test_a_picture_that_could_not_be_read_keeps_its_reason() -> None:
    cosine = torch.tensor([math.nan, math.nan, 0.2, 0.2])
    broken = without_score(cosine, [BrokenImage(1, "b.png", "no such file")], NAMES)
    assert [str(image) for image in broken] == [f"a.png: {NOT_A_NUMBER}", "b.png: no such file"]


def test_nothing_has_a_score() -> None:
    cosine = torch.full((4,), math.nan)
    assert len(ranked(Scores(cosine, without_score(cosine, [], NAMES)), NAMES, 1.0)) == 0
