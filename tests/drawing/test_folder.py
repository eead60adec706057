"""The output folder: complete at every moment, and what is there is drawn once."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from altdiffusion_clip.drawing import folder as module
from altdiffusion_clip.drawing.folder import LOCK, OutputFolder
from altdiffusion_clip.drawing.gallery import THUMBNAILS
from altdiffusion_clip.drawing.log import read_results
from altdiffusion_clip.drawing.png_text import settings_of
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.drawing.tasks import Task
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.names import load_panel


def task(seed: int, prompt: str = "猫", group: str = "000", **more: object) -> Task:
    settings = Settings(prompt, seed, (seed,), "emoji-m18")
    return Task(f"{group}-seed{seed}", group, settings, **more)  # type: ignore[arg-type]


def picture(level: int, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), (level, 0, 0))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def redness(texts: list[str], pictures: list[Image.Image]) -> list[float]:
    return [each.getpixel((0, 0))[0] / 255 for each in pictures]


def test_files_are_complete_after_every_picture(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "new")
    for seed in range(3):
        (row,) = folder.add([(task(seed), picture(seed))])
        assert lines(tmp_path / "new")[-1] == json.loads(json.dumps(row))
        assert len(lines(tmp_path / "new")) == seed + 1
        assert settings_of(tmp_path / "new" / row["file"]) == task(seed).settings


def test_what_is_there_is_there(tmp_path: Path) -> None:
    OutputFolder(tmp_path).add([(task(0), picture(0)), (task(1), "the picture is not a number")])
    folder = OutputFolder(tmp_path)
    assert folder.is_done(task(0))
    assert not folder.is_done(task(1)), "it failed"
    assert not folder.is_done(task(2))
    with pytest.raises(
        UserError, match=r"has 000-seed0 with other settings: prompt is '猫', not 'a cat'; add --overwrite"
    ):
        folder.is_done(task(0, "a cat"))
    again = OutputFolder(tmp_path, overwrite=True)
    assert not again.is_done(task(0, "a cat"))
    again.add([(task(0, "a cat"), picture(9))])
    assert again.is_done(task(0, "a cat"))
    (tmp_path / "000-seed0.png").unlink()
    assert not OutputFolder(tmp_path).is_done(task(0, "a cat"))


def test_half_of_a_line_is_cut_off(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.add([(task(0), picture(0))])
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(whole + whole[:40])
    folder = OutputFolder(tmp_path)
    assert not folder.is_done(task(1))
    folder.add([(task(1), picture(1))])
    assert [row["seed"] for row in lines(tmp_path)] == [0, 1]


class TestRanks:
    def test_a_group_is_ranked_when_it_is_whole(self, tmp_path: Path) -> None:
        folder = OutputFolder(tmp_path, load_panel(redness))
        tasks = [*(task(seed) for seed in range(3)), task(0, "a dog", "001")]
        folder.plan(tasks)
        rows = folder.add([(tasks[0], picture(50)), (tasks[1], picture(200))])
        assert [row["rank"] for row in rows] == [None, None]
        rows = folder.add([(tasks[2], picture(100)), (tasks[3], picture(7))])
        assert {row["name"]: row["rank"] for row in rows} == {
            "000-seed0": 3, "000-seed1": 1, "000-seed2": 2, "001-seed0": 1,
        }  # fmt: skip
        assert rows[0]["score"] == {"score": pytest.approx(100 / 255, abs=1e-6)}
        folder.finish()
        assert [row["rank"] for row in lines(tmp_path)] == [3, 1, 2, 1]
        assert [row["name"] for row in folder.rows()] == ["000-seed1", "000-seed2", "000-seed0", "001-seed0"]

    def test_after_a_kill_the_earlier_pictures_count(self, tmp_path: Path) -> None:
        tasks = [task(seed) for seed in range(3)]
        first = OutputFolder(tmp_path, load_panel(redness))
        first.plan(tasks)
        first.add([(tasks[0], picture(50)), (tasks[1], picture(200))])
        second = OutputFolder(tmp_path, load_panel(redness))
        second.plan(tasks)
        for each in tasks[:2]:
            assert second.is_done(each)
            second.pass_over(each)
        second.add([(tasks[2], picture(100))])
        second.finish()
        assert [row["rank"] for row in lines(tmp_path)] == [3, 1, 2]

    def test_rules_that_compare_pictures(self, tmp_path: Path) -> None:
        panel = load_panel("ranks:emoji-m18,emoji-m18/teacher")
        tasks = [task(seed, "a cat") for seed in range(3)]
        for part in (tasks[:2], tasks[2:]):
            folder = OutputFolder(tmp_path, panel)
            folder.plan(tasks)
            for each in tasks:
                if folder.is_done(each):
                    folder.pass_over(each)
            folder.add([(each, picture(40 * each.settings.seed, 64)) for each in part])
        folder.finish()
        rows = lines(tmp_path)
        members = torch.tensor([row["members"] for row in rows]).T
        assert [row["score"]["score"] for row in rows] == pytest.approx(panel.combine(members)[0].tolist(), abs=1e-5)
        assert sorted(row["rank"] for row in rows) == [1, 2, 3]

    def test_another_judge_looks_at_what_is_there(self, tmp_path: Path) -> None:
        tasks = [task(0), task(1)]
        OutputFolder(tmp_path).add([(tasks[0], picture(10)), (tasks[1], picture(20))])
        folder = OutputFolder(tmp_path, load_panel(redness))
        folder.plan(tasks)
        for each in tasks:
            assert folder.is_done(each)
            folder.pass_over(each)
        folder.finish()
        assert [row["rank"] for row in lines(tmp_path)] == [2, 1]

    def test_only_the_best_are_kept(self, tmp_path: Path) -> None:
        tasks = [task(seed) for seed in range(4)]
        folder = OutputFolder(tmp_path, load_panel(redness), keep=2)
        folder.plan(tasks)
        for each, level in zip(tasks, (50, 200, 100, 10), strict=True):
            folder.add([(each, picture(level, 300))])
        assert sorted(path.name for path in tmp_path.glob("*.png")) == ["000-seed1.png", "000-seed2.png"]
        assert sorted(path.name for path in (tmp_path / THUMBNAILS).iterdir()) == ["000-seed1.webp", "000-seed2.webp"]
        assert [row["file"] is None for row in read_results(tmp_path)] == [True, False, False, True]
        again = OutputFolder(tmp_path, load_panel(redness), keep=2)
        assert all(again.is_done(each) for each in tasks)
        assert not OutputFolder(tmp_path, load_panel(redness)).is_done(tasks[0]), "without --keep it is wanted"

    def test_what_is_not_a_number_has_no_rank(self, tmp_path: Path) -> None:
        def broken(texts: list[str], pictures: list[Image.Image]) -> list[float]:
            return [float("nan") if each.getpixel((0, 0))[0] > 100 else 1.0 for each in pictures]

        folder = OutputFolder(tmp_path, load_panel(broken))
        folder.plan([task(0), task(1)])
        folder.add([(task(0), picture(200)), (task(1), picture(50))])
        assert [(row["rank"], row["score"]) for row in lines(tmp_path)] == [(None, None), (1, {"score": 1.0})]


def test_more_than_ten_thousand_lie_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_FOLDER", 3)
    tasks = [task(seed) for seed in range(7)]
    folder = OutputFolder(tmp_path)
    folder.plan(tasks)
    for each in tasks:
        assert not folder.is_done(each)
        folder.add([(each, picture(1, 300))])
    folder.finish()
    assert [row["file"] for row in lines(tmp_path)] == [f"{n // 3:04d}/000-seed{n}.png" for n in range(7)]
    assert (tmp_path / THUMBNAILS / "0002" / "000-seed6.webp").is_file()
    assert 'src="thumbnails/0000/000-seed0.webp"' in (tmp_path / "index.html").read_text("utf-8")
    assert all(OutputFolder(tmp_path).is_done(each) for each in tasks)


def test_after_a_stop_they_lie_in_the_same_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_FOLDER", 3)
    tasks = [task(seed) for seed in range(8)]
    for part in (tasks[:4], tasks):
        folder = OutputFolder(tmp_path)
        folder.plan(tasks)
        missing = [each for each in tasks if not folder.is_done(each)]
        for each in missing:
            if each in part:
                folder.add([(each, picture(1))])
    folder.finish()
    assert [row["file"] for row in lines(tmp_path)] == [f"{n // 3:04d}/000-seed{n}.png" for n in range(8)]


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    with OutputFolder(tmp_path).locked():
        with pytest.raises(UserError, match="another run is drawing into"), OutputFolder(tmp_path).locked():
            pass
        assert (tmp_path / LOCK).is_file()
    with OutputFolder(tmp_path).locked():
        pass


def test_a_disk_that_is_full_is_one_line_and_leaves_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = OutputFolder(tmp_path)
    folder.add([(task(0), picture(0))])

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_bytes", full)
        with pytest.raises(UserError, match=f"cannot write to {tmp_path}: No space left on device"):
            folder.add([(task(1), picture(1))])
    with monkeypatch.context() as patch:
        patch.setattr("altdiffusion_clip.drawing.log.os.fsync", full)
        with pytest.raises(UserError, match="No space left"):
            OutputFolder(tmp_path).log.append([]) or folder.add([(task(1), picture(1))])
    assert [row["seed"] for row in read_results(tmp_path)] == [0]
    again = OutputFolder(tmp_path)
    assert not again.is_done(task(1))
    again.add([(task(1), picture(1))])
    assert [row["seed"] for row in read_results(tmp_path)] == [0, 1]


def test_nothing_drawn_writes_nothing(tmp_path: Path) -> None:
    OutputFolder(tmp_path).finish()
    assert not list(tmp_path.iterdir())


def test_rows_of_older_versions_are_read(tmp_path: Path) -> None:
    row = {"prompt": "猫", "seed": 0, "file": "000-seed0.png", "score": None, "rank": None, "model": "emoji-m18"}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    picture(3).save(tmp_path / "000-seed0.png")
    folder = OutputFolder(tmp_path)
    with pytest.raises(UserError, match="prompt is None"):
        folder.is_done(task(0))
    folder.finish()
    assert (tmp_path / "index.html").read_text("utf-8").count("<img") == 1


@pytest.mark.parametrize("content", ["not json", "[1]", '{"prompt": "猫"}'])
def test_a_list_that_is_not_ours_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(content + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="choose another folder"):
        OutputFolder(tmp_path)
    assert (tmp_path / "results.jsonl").read_text("utf-8") == content + "\n"
