import math

import pytest
import torch
from torch.nn import functional as F

from altdiffusion_clip.training.losses import diffusion_loss, info_nce
from altdiffusion_clip.training.temperature import clamp_temperature


def test_it_is_clips_loss_when_all_differ() -> None:
    torch.manual_seed(0)
    text, image, scale = torch.randn(6, 8), torch.randn(6, 8), torch.tensor(2.0)
    logits = scale.exp() * F.normalize(text, dim=1) @ F.normalize(image, dim=1).T
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(info_nce(text, image, scale), expected)


def test_a_caption_that_stands_twice_is_not_its_own_negative() -> None:
    text = torch.eye(4)[[0, 0, 1, 2]]
    scale = torch.tensor(math.log(100.0))
    assert info_nce(text, text, scale) > 0.3, "the plain loss cannot get below log 2 on the repeated rows"
    same = torch.tensor([0, 0, 1, 2])
    positives = same[:, None] == same[None, :]
    # All that is left is the entropy of the spread target: log 2 on two of four rows.
    assert info_nce(text, text, scale, positives).item() == pytest.approx(math.log(2) / 2, abs=1e-4)


def test_a_temperature_at_its_bound_learns_on() -> None:
    """Clamped in the loss it would have no gradient there, and never come back."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.logit_scale = torch.nn.Parameter(torch.tensor(9.0))
    clamp_temperature(module)
    assert module.logit_scale.item() == pytest.approx(math.log(100.0))
    text, image = torch.randn(6, 8), torch.randn(6, 8)
    info_nce(text, image, module.logit_scale).backward()
    assert module.logit_scale.grad > 0.1, "these pairs do not fit: the scale is to fall"


def test_lengths_do_not_matter() -> None:
    torch.manual_seed(0)
    text, image, scale = torch.randn(6, 8), torch.randn(6, 8), torch.tensor(1.0)
    torch.testing.assert_close(info_nce(text, image, scale), info_nce(3 * text, 0.2 * image, scale))


class TestDiffusionLoss:
    def test_v_prediction_at_pure_noise_counts_in_full(self) -> None:
        prediction, target = torch.zeros(3, 2), torch.ones(3, 2)
        assert diffusion_loss(prediction, target, torch.zeros(3), "v_prediction") == 1
        assert diffusion_loss(prediction, target, torch.full((3,), 4.0), "v_prediction") == 1
        measured = diffusion_loss(prediction, target, torch.full((3,), 59.0), "v_prediction").item()
        assert measured == pytest.approx(6 / 60)

    def test_epsilon_is_weighted_down_above_gamma_alone(self) -> None:
        prediction, target = torch.zeros(2, 2), torch.ones(2, 2)
        assert diffusion_loss(prediction, target, torch.full((2,), 3.0), "epsilon") == 1
        assert diffusion_loss(prediction, target, torch.full((2,), 50.0), "epsilon").item() == pytest.approx(0.1)
        assert torch.isfinite(diffusion_loss(prediction, target, torch.zeros(2), "epsilon"))

    def test_examples_have_weights(self) -> None:
        prediction, target = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [3.0, 3.0]])
        loss = diffusion_loss(prediction, target, torch.ones(2), "epsilon", torch.tensor([1.0, 0.0]))
        assert loss == 0.5

    def test_another_prediction_is_refused(self) -> None:
        with pytest.raises(ValueError, match="epsilon and v_prediction can be trained"):
            diffusion_loss(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1), "sample")
