"""What the demo refuses."""

from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.demo.limits import Limits, RateLimit
from altdiffusion_clip.demo.texts import Refusal


def test_control_characters_are_no_part_of_a_prompt() -> None:
    assert Limits().prompt(" a\x00cat\x1b[31m \n") == "a cat [31m"
    assert Limits().prompt("<b>猫</b>") == "<b>猫</b>", "markup is text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "empty_prompt"), (" \x00 ", "empty_prompt"), (None, "empty_prompt"), ("猫" * 1_000_000, "long_prompt")],
)
def test_prompts_that_are_refused(text: str | None, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        Limits().prompt(text)
    assert refused.value.key == reason


@pytest.mark.parametrize("value", [0, 11, None, "5", float("nan"), float("inf"), [5]])
def test_numbers_that_are_refused(value: object) -> None:
    Limits().within(steps=(5, 1, 10))
    with pytest.raises(Refusal, match=r"Steps must be (between 1 and 10|a number)\.") as refused:
        Limits().within(steps=(value, 1, 10))
    assert refused.value.said("zh") in ("采样步数须在 1 到 10 之间。", "采样步数须为数字。")


def test_uploads_that_are_refused(tmp_path: Path) -> None:
    Image.new("1", (16_000, 12_500)).save(tmp_path / "200-megapixels.png")
    (tmp_path / "picture.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (tmp_path / "weights.png").write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04os.x\x94.")
    (tmp_path / "large.png").write_bytes(b"x" * 200)
    for name, reason in (
        ("200-megapixels.png", "large_upload"),
        ("picture.svg", "no_picture"),
        ("weights.png", "no_picture"),
    ):
        with pytest.raises(Refusal) as refused:
            Limits().picture(tmp_path / name)
        assert refused.value.key == reason
    with pytest.raises(Refusal, match="too large"):
        Limits(upload_bytes=100).picture(tmp_path / "large.png")


def test_each_visitor_has_a_rate_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("altdiffusion_clip.demo.limits.time.monotonic", lambda: now[0])
    rate = RateLimit(3, 10)
    assert [rate.allows("a") for _ in range(4)] == [True, True, True, False]
    assert rate.allows("b")
    now[0] = 10.5
    assert rate.allows("a")


def test_amounts_are_added_up() -> None:
    rate = RateLimit(100, 60)
    assert [rate.allows("a", amount) for amount in (60, 50, 40, 1)] == [True, False, True, False]


def test_many_visitors_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("altdiffusion_clip.demo.limits._CLIENTS", 100)
    rate = RateLimit(1, 10)
    for number in range(1000):
        assert rate.allows(str(number))
    assert len(rate._asked) == 100
