"""What Compare can say: in the languages of the model, of things that it draws."""

import gradio as gr
import pytest

from altdiffusion_clip.demo.ideas import NAMES, ideas_of
from altdiffusion_clip.emoji.languages import LANGUAGES


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("BAAI/AltDiffusion", 2),
        ("BAAI/AltDiffusion-m9", 9),
        ("BAAI/AltDiffusion-m18", 18),
        ("/models/my-AltDiffusion-M18/", 18),
        ("/models/mine", 9),
        ("emoji-m18", 18),
    ],
)
def test_every_language_of_a_model(model: str, count: int) -> None:
    ideas = ideas_of(model)
    assert list(ideas.languages) == list(NAMES)[:count]
    for thing in (ideas.things[0][1], ideas.things[-1][1]):
        for ground in (ideas.grounds[0], ideas.grounds[-1]):
            said = ideas.say(thing, ground)
            assert len(set(said)) == count, "each in its own words"


def test_the_languages_are_m18s() -> None:
    assert set(NAMES) == set(LANGUAGES)


def test_what_there_is_not() -> None:
    for wrong in (("unicorn dance", "blue"), ("cat", "nowhere")):
        with pytest.raises(KeyError):
            ideas_of("emoji-m18").say(*wrong)


def test_the_api_takes_each_language_by_its_code() -> None:
    from altdiffusion_clip.demo.compare_tab import CompareTab

    tab = CompareTab.__new__(CompareTab)
    tab._ideas = ideas_of("emoji-m18")
    named = list(tab._call().__signature__.parameters)  # type: ignore[attr-defined]
    assert named[:18] == list(NAMES)
    assert named[18:] == ["steps", "guidance", "seed", "scheduler", "accepted", "language", "request"]
    assert tab._call().__annotations__["request"] is gr.Request
