import stat
import subprocess
import sys
from pathlib import Path

import pytest

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_folder, atomic_path, free_bytes, lock_of, remove_leftovers, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as path:
        path.write_text("half of the ne")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    code = (
        "import os, sys; from altdiffusion_clip.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)], timeout=60).returncode == -9
    assert target.read_text() == "old"


def test_permissions_are_those_of_a_plain_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    write_text(tmp_path / "atomic", "")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_folders_are_made_and_the_suffix_is_kept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.png") as path:
        assert path.suffix == ".png"
    assert (tmp_path / "new" / "a.png").is_file()


class TestFolders:
    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as folder:
            (folder / "b.txt").write_text("half")
            raise RuntimeError
        assert not any(tmp_path.iterdir())

    def test_all_of_it_appears_at_once(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "new" / "a") as folder:
            (folder / "b").mkdir()
            (folder / "b" / "c.txt").write_text("whole")
            assert not (tmp_path / "new" / "a").exists()
        assert (tmp_path / "new" / "a" / "b" / "c.txt").read_text() == "whole"
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
        assert stat.S_IMODE((tmp_path / "new" / "a").stat().st_mode) & 0o500 == 0o500

    def test_what_is_there_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "mine.txt").write_text("mine")
        with pytest.raises(OSError), atomic_folder(tmp_path / "a") as folder:
            (folder / "b.txt").write_text("new")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.txt"]

    def test_free_room_is_that_of_the_nearest_folder(self, tmp_path: Path) -> None:
        assert free_bytes(tmp_path / "not" / "there" / "yet") > 0


def test_what_a_killed_run_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    left = [tmp_path / ".a-0123abcd.png", tmp_path / "deep" / ".rows-deadbeef.tar"]
    kept = [tmp_path / name for name in (".hidden", ".gitignore", "a-0123abcd.png", ".a-0123.png", ".a-0123abcg.png")]
    for path in (*left, *kept):
        path.touch()
    remove_leftovers(tmp_path)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_what_atomic_path_leaves_is_known(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.b-c.png") as temporary:
        name = temporary.name
        raise KeyboardInterrupt
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    lock = lock_of(tmp_path / "new" / "_lock", "taken")
    with pytest.raises(UserError, match="taken"):
        lock_of(tmp_path / "new" / "_lock", "taken")
    lock.release()
    lock_of(tmp_path / "new" / "_lock", "taken").release()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        lock_of(tmp_path / "file" / "_lock", "taken")
