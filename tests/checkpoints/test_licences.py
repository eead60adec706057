"""Licences, from cards that lie beside the weights and from what is known of published models."""

from pathlib import Path

import pytest

from altdiffusion_clip.checkpoints.licences import licence_of


def folder(tmp_path: Path, card: str) -> str:
    (tmp_path / "README.md").write_bytes(card.encode("utf-8", "surrogateescape"))
    return str(tmp_path)


@pytest.mark.parametrize("name", ["BAAI/AltDiffusion", "BAAI/AltDiffusion-m9", "BAAI/AltDiffusion-m18"])
def test_baais_own(name: str) -> None:
    licence = licence_of(name)
    assert licence is not None
    assert licence.name == "CreativeML OpenRAIL-M"
    assert licence.restricts_use


def test_a_card_says_it(tmp_path: Path) -> None:
    licence = licence_of(folder(tmp_path, "---\nlicense: creativeml-openrail-m\n---\n# A copy\n"))
    assert licence is not None
    assert licence.restricts_use
    licence = licence_of(folder(tmp_path, "---\nlicense: [mit]\n---\n"))
    assert licence is not None
    assert (licence.name, licence.restricts_use) == ("MIT", False)


def test_one_that_is_not_known_is_named_as_it_is(tmp_path: Path) -> None:
    licence = licence_of(folder(tmp_path, "---\nlicense: wtfpl\n---\n"))
    assert licence is not None
    assert (licence.name, licence.url) == ("wtfpl", "")


@pytest.mark.parametrize(
    "card",
    ["# no front matter", "---\nlicense: [\n---\n", "---\nlanguage: en\n---\n", "---\n- a\n- b\n---\n", "\udcff\udcfe"],
    ids=["none", "broken", "no licence", "a list", "no text"],
)
def test_cards_that_do_not_say(card: str, tmp_path: Path) -> None:
    assert licence_of(folder(tmp_path, card)) is None


def test_nothing_is_fetched_for_other_ids(tmp_path: Path) -> None:
    assert licence_of("somebody/else") is None
    assert licence_of(str(tmp_path / "no-such-file.safetensors")) is None
