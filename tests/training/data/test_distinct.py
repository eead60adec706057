"""Distinct texts are numbered in order of appearance."""

from pathlib import Path

import pytest

from altdiffusion_clip.training.data import distinct
from altdiffusion_clip.training.data.distinct import DistinctTexts


def test_many_texts_get_the_numbers_that_a_dictionary_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "CACHE_KB", 8)  # far less than the database needs
    texts = [f"{'猫' if number % 3 else ''} {number * number % 7919}" for number in range(20_000)]
    expected: dict[str, int] = {}
    with DistinctTexts(tmp_path / "seen") as found:
        for text in texts:
            is_new = text not in expected
            assert found.number(text) == (expected.setdefault(text, len(expected)), is_new)
        assert len(found) == len(expected)


def test_the_empty_text_and_blanks_are_texts_of_their_own(tmp_path: Path) -> None:
    with DistinctTexts(tmp_path / "seen") as found:
        assert [found.number(text)[0] for text in ("", " ", "a", "A", "a ", "a")] == [0, 1, 2, 3, 4, 2]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_nothing_is_left_behind(error: BaseException | None, tmp_path: Path) -> None:
    try:
        with DistinctTexts(tmp_path / "seen") as found:
            found.number("a")
            if error:
                raise error
    except KeyboardInterrupt:
        pass
    assert not list(tmp_path.iterdir())
