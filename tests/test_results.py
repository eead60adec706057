import json
from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.drawing import Settings, settings_of
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.results import ResultsFolder


def settings(seed: int, prompt: str = "猫") -> Settings:
    return Settings(prompt, seed, (seed,), "emoji-m9")


def test_files_are_complete_after_every_picture(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "new")
    for seed in range(3):
        row = folder.add(Image.new("RGB", (8, 8), (seed, 0, 0)), settings(seed))
        rows = [json.loads(line) for line in (tmp_path / "new" / "results.jsonl").read_text("utf-8").splitlines()]
        assert rows[-1] == json.loads(json.dumps(row))
        assert len(rows) == seed + 1
        assert settings_of(tmp_path / "new" / row["file"]) == settings(seed)


def test_numbering_goes_on_and_earlier_rows_stay(tmp_path: Path) -> None:
    for seed in range(2):
        folder = ResultsFolder(tmp_path)
        folder.add(Image.new("RGB", (8, 8)), settings(seed))
        folder.finish()
    assert (tmp_path / "001-seed1.png").is_file()
    assert len((tmp_path / "results.jsonl").read_text("utf-8").splitlines()) == 2
    assert (tmp_path / "index.html").read_text("utf-8").count("<img") == 2


def test_a_picture_that_was_deleted_is_left_out_of_the_sheet(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    for seed in range(2):
        folder.add(Image.new("RGB", (8, 8)), settings(seed))
    (tmp_path / "000-seed0.png").unlink()
    folder.finish()
    assert (tmp_path / "index.html").read_text("utf-8").count("<img") == 1


def test_nothing_drawn_writes_nothing(tmp_path: Path) -> None:
    ResultsFolder(tmp_path).finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["not json", "[1]", '{"prompt": "猫"}'])
def test_a_list_that_is_not_ours_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(content + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="choose another folder"):
        ResultsFolder(tmp_path)
    assert (tmp_path / "results.jsonl").read_text("utf-8") == content + "\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prompt": "猫"}', '{"batch_seeds": 3}'])
def test_damaged_settings_are_one_line(text: str, tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    from altdiffusion_clip.drawing import SETTINGS_KEY

    info = PngImagePlugin.PngInfo()
    info.add_itxt(SETTINGS_KEY, text)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match="damaged") as raised:
        settings_of(tmp_path / "a.png")
    assert "\n" not in str(raised.value)
