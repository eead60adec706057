"""What a model does not know is said in one line, in every place where a picture is shown."""

import json
from pathlib import Path

import pytest

from altdiffusion_clip import generate
from altdiffusion_clip.cli import main
from altdiffusion_clip.drawing.knowledge import things_of, unknown_of
from altdiffusion_clip.errors import UserError


@pytest.mark.parametrize(
    ("model", "prompt", "said"),
    [
        ("emoji-m18", "a knight at night", "emoji-m18 knows nothing that this prompt names"),
        ("emoji-m18", "Mona Lisa", "emoji-m18 knows nothing that this prompt names"),
        ("emoji-m18", "a knight with a dog", "emoji-m18 knows dog, but not knight; `altdiffusion inspect emoji-m18"),
    ],
)
def test_it_is_one_line(model: str, prompt: str, said: str) -> None:
    unknown = unknown_of(model, prompt)
    assert str(unknown).startswith(said)
    assert "\n" not in str(unknown)


@pytest.mark.parametrize(
    ("model", "prompt"),
    [("emoji-m18", "一只猫"), ("emoji-m18", "a house at night"), ("BAAI/AltDiffusion-m9", "a knight")],
)
def test_nothing_is_said_of_what_is_known_or_cannot_be_told(model: str, prompt: str) -> None:
    assert unknown_of(model, prompt) is None


def test_generate_says_it_in_the_terminal_the_rows_and_the_page(tmp_path: Path, capsys) -> None:
    arguments = ["generate", "a knight", "a dog", "--num-images", "1", "--steps", "1", "--json"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    knight, dog = (json.loads(line) for line in out.splitlines())
    assert "knows nothing that this prompt names" in knight["warning"]
    assert "warning" not in dog
    assert f"a knight: {knight['warning']}" in err
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count('<p class="warning">') == 1


def test_python_gets_it_too(tmp_path: Path) -> None:
    (row,) = generate(["a knight"], output=tmp_path, seeds=[0], num_inference_steps=1)
    assert "knows nothing" in row["warning"]


def test_what_it_draws_is_listed(capsys) -> None:
    assert main(["inspect", "emoji-m18", "--things"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(things_of("emoji-m18"))
    assert any("cat, 猫" in line for line in lines)
    assert main(["inspect", "emoji-m18", "--things", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["en"] == "cat"


def test_of_other_models_it_cannot_be_listed() -> None:
    with pytest.raises(UserError, match="cannot be listed"):
        things_of("BAAI/AltDiffusion-m9")
