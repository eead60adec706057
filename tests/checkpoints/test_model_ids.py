from pathlib import Path

import pytest

from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder, resolve, resolve_scorer


def test_emoji_m9_is_a_folder_in_the_package() -> None:
    assert resolve("emoji-m9") == str(emoji_m9_folder())
    assert (emoji_m9_folder() / "model_index.json").is_file()
    assert resolve_scorer("emoji-m9") == (str(emoji_m9_folder()), "scorer")


@pytest.mark.parametrize("name", ["BAAI/AltDiffusion-m9", "./folder", Path("folder")])
def test_other_names_stay_as_they_are(name: str | Path) -> None:
    assert resolve(name) == str(name)
    assert resolve_scorer(name) == (str(name), None)


def test_a_folder_with_a_scorer_in_it(tmp_path: Path) -> None:
    (tmp_path / "scorer").mkdir()
    assert resolve_scorer(tmp_path) == (str(tmp_path), None)
    (tmp_path / "scorer" / "config.json").write_text("{}")
    assert resolve_scorer(tmp_path) == (str(tmp_path), "scorer")
