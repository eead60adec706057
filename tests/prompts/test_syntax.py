"""One warning for what other programs would read."""

import logging

import pytest

from altdiffusion_clip.prompts.syntax import not_understood, warn_of_syntax


@pytest.mark.parametrize(
    ("prompt", "kinds"),
    [
        ("a cat <lora:style:0.8>", ["<lora:name:weight>"]),
        ("a cat BREAK a dog", ["BREAK"]),
        ("a [cat|dog]", ["[a|b]"]),
        ("a [cat:dog:0.5]", ["[from:to:when]"]),
        ("a cat AND a dog", ["AND"]),
        ("a cat and a breaker, [small] (red:1.2) <3", []),
        ("一只猫", []),
    ],
)
def test_kinds(prompt: str, kinds: list[str]) -> None:
    assert not_understood(prompt) == kinds


def test_one_warning_a_prompt(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            warn_of_syntax("a cat <lora:a:1> BREAK, from above")
            warn_of_syntax("a clock (12:30), from above")
            warn_of_syntax("a (red:1.3) cat, from above")
    assert [record.message for record in caplog.records] == [
        "<lora:name:weight>, BREAK in the prompt are not understood here and drawn as text; "
        "LoRAs are loaded with load_lora_weights",
        "(12:30) in the prompt is read as text: weights follow a word and are between 0 and 3, as in (cat:1.3)",
    ]
