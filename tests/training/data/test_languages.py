import numpy as np
import pytest
import torch

from altdiffusion_clip.training.data.languages import LanguageMix, similar_lengths

LANGUAGE = np.array([0] * 900 + [1] * 90 + [2] * 10, np.uint8)
CODES = ["en", "zh", "ja"]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [0.9, 0.09, 0.01]),
        (2.0, [900**0.5, 90**0.5, 10**0.5]),
        (1e9, [1, 1, 1]),
    ],
)
def test_rare_languages_come_up_more_often_with_temperature(temperature: float, expected: list[float]) -> None:
    mix = LanguageMix(LANGUAGE, CODES, temperature)
    wanted = [value / sum(expected) for value in expected]
    assert list(mix.shares.values()) == pytest.approx(wanted, abs=1e-6)
    drawn = mix.draw(20_000, torch.Generator().manual_seed(0))
    counts = np.bincount(LANGUAGE[drawn.numpy()], minlength=3) / 20_000
    assert counts == pytest.approx(wanted, abs=0.015)


def test_weights_and_languages_without_a_sentence() -> None:
    mix = LanguageMix(LANGUAGE, [*CODES, "ko"], 1e9, {"en": 2.0, "zh": 0.0})
    assert mix.shares == pytest.approx({"en": 2 / 3, "zh": 0, "ja": 1 / 3, "ko": 0})
    drawn = mix.draw(1000, torch.Generator().manual_seed(0))
    assert set(LANGUAGE[drawn.numpy()].tolist()) == {0, 2}


def test_every_row_of_a_language_comes_up() -> None:
    mix = LanguageMix(LANGUAGE, CODES, 1e9)
    drawn = mix.draw(5000, torch.Generator().manual_seed(0)).tolist()
    assert set(range(990, 1000)) <= set(drawn)
    assert len({row for row in drawn if row < 900}) > 700


def test_only_chosen_rows_come_up_and_their_languages_share_accordingly() -> None:
    is_drawn = np.zeros(len(LANGUAGE), bool)
    is_drawn[[0, 1, 2, 905]] = True
    mix = LanguageMix(LANGUAGE, CODES, is_drawn=is_drawn)
    assert mix.shares == pytest.approx({"en": 0.75, "zh": 0.25, "ja": 0.0})
    assert set(mix.draw(1000, torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2, 905}


def test_rows_are_found_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LanguageMix(LANGUAGE, CODES).draw(500, torch.Generator().manual_seed(0))
    monkeypatch.setattr("altdiffusion_clip.training.data.languages._ROWS_AT_ONCE", 7)
    assert torch.equal(LanguageMix(LANGUAGE, CODES).draw(500, torch.Generator().manual_seed(0)), whole)


def test_similar_lengths_leave_little_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 77, (512,), generator=generator)
    chosen = similar_lengths(lengths, 64, generator)
    assert len(set(chosen.tolist())) == 64
    assert lengths[chosen].max() - lengths[chosen].min() < 15


def test_every_row_is_as_likely_as_any_other() -> None:
    """The shortest and the longest too, and with them each language."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.cat([torch.full((8,), 3), torch.randint(5, 30, (112,), generator=generator), torch.full((8,), 70)])
    drawn = torch.zeros(len(lengths))
    for _ in range(4000):
        order = torch.randperm(len(lengths), generator=generator)
        drawn[order[similar_lengths(lengths[order], 16, generator)]] += 1
    shares = drawn / drawn.mean()
    assert shares.min() > 0.75
    assert shares.max() < 1.25
