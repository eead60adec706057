import pytest

from altdiffusion_clip.prompts.weights import parse_weights


def spans(prompt: str) -> list[tuple[str, float]]:
    """Stretches of equal weight."""
    parsed = parse_weights(prompt)
    assert len(parsed.text) == len(parsed.weights)
    found: list[tuple[str, float]] = []
    for character, weight in zip(parsed.text, parsed.weights, strict=True):
        if found and found[-1][1] == round(weight, 4):
            found[-1] = (found[-1][0] + character, found[-1][1])
        else:
            found.append((character, round(weight, 4)))
    return found


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a ((red)) cat", [("a ", 1), ("red", 1.21), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 0.9091), (" cat", 1)]),
        ("a (red:1.5) cat", [("a ", 1), ("red", 1.5), (" cat", 1)]),
        ("(a (red:2) cat:0.5)", [("a ", 0.5), ("red", 1), (" cat", 0.5)]),
        ("(no:0)", [("no", 0)]),
        ("(half:.5)", [("half", 0.5)]),
        ("(ratio 16:9:1.2)", [("ratio 16:9", 1.2)]),
        # other scripts, with their own brackets, colons and digits
        ("（蓝色：1.5）背景上的猫", [("蓝色", 1.5), ("背景上的猫", 1)]),
        ("(蓝色：１．５）背景", [("蓝色", 1.5), ("背景", 1)]),
        ("［青い］背景の猫", [("青い", 0.9091), ("背景の猫", 1)]),
        ("قطة (زرقاء:1.3)", [("قطة ", 1), ("زرقاء", 1.3)]),
        ("قطة (زرقاء:١٫٣)", [("قطة ", 1), ("زرقاء", 1.3)]),
        ("(लाल:१.५) सेब", [("लाल", 1.5), (" सेब", 1)]),
        ("(แดง:๑.๒)", [("แดง", 1.2)]),
        ("(❤️🐱:1.3) cat", [("❤️🐱", 1.3), (" cat", 1)]),
        ("(most:3)", [("most", 3)]),
        # what is no weight
        (r"a \(red\) cat", [("a (red) cat", 1)]),
        (r"a \[red\] \\ cat", [("a [red] \\ cat", 1)]),
        (r"a \d cat", [(r"a \d cat", 1)]),
        ("a cat) :)", [("a cat) :)", 1)]),
        ("at 10:30)", [("at 10:30)", 1)]),
        ("[a:0.5]", [("a:0.5", 0.9091)]),
        ("(a:1.2.3)", [("(a:1.2.3)", 1)]),
        ("(no:-1)", [("(no:-1)", 1)]),
        ("(cat:999999)", [("(cat:999999)", 1)]),
        ("a cat (16:9)", [("a cat (16:9)", 1)]),
        ("(1:2)", [("(1:2)", 1)]),
        ("蓝色背景上的猫（12：30）", [("蓝色背景上的猫（12：30）", 1)]),
        ("(a (red:2) cat:30)", [("(a ", 1), ("red", 2), (" cat:30)", 1)]),
        ("(a:red)", [("a:red", 1.1)]),
        # brackets that do not pair
        ("a (red cat", [("a ", 1), ("red cat", 1.1)]),
        ("(a] cat)", [("a] cat", 1.1)]),
        ("(([a", [("a", 1.1)]),
        ("()", []),
    ],
)
def test_parsing(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert spans(prompt) == expected


def test_plain_prompts_are_plain() -> None:
    assert parse_weights("a cat").is_plain
    assert parse_weights(r"\(a\)").is_plain
    assert not parse_weights("(a)").is_plain


def test_what_is_no_weight_is_told() -> None:
    assert parse_weights("(12:30) (red:1.5) (cat:7)").not_weights == ("(12:30)", "(cat:7)")
