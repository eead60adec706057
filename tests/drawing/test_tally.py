"""Counts on disk."""

import subprocess
import sys
from pathlib import Path

import pytest

from altdiffusion_clip.drawing.tally import Tally
from altdiffusion_clip.errors import UserError


def test_it_counts_what_a_dictionary_counts_in_the_same_order() -> None:
    tally, expected = Tally(), {}
    for number in range(3000):
        name = f"猫-{number * 7919 % 1000}"
        expected[name] = expected.get(name, 0) + number % 3 - 1
        tally.add(name, number % 3 - 1)
        assert tally[name] == expected[name]
    assert {name: tally[name] for name in tally} == expected
    assert list(tally) == list(expected)
    assert len(tally) == 1000


def test_a_count_of_zero_is_not_a_missing_one() -> None:
    tally = Tally()
    tally.add("a", 0)
    assert "a" in tally
    assert "b" not in tally
    assert tally["b"] == 0


def test_a_name_is_new_once() -> None:
    tally = Tally()
    assert [tally.is_new(name) for name in ("a", "b", "a")] == [True, True, False]
    tally.add("c", 2)
    assert not tally.is_new("c")
    assert tally["c"] == 2


def test_two_tallies_share_nothing() -> None:
    first, second = Tally(), Tally()
    first.add("a")
    assert "a" not in second


def test_memory_does_not_grow_with_the_names() -> None:
    code = """
import resource
from altdiffusion_clip.drawing.tally import Tally
tally = Tally()
def peak(names):
    for number in range(len(tally), names):
        tally.add(f"a rather long name of a picture, as there are many, number {number}")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few, many = peak(5_000), peak(100_000)
print(many - few)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown = int(done.stdout) / (1 if sys.platform != "darwin" else 1024)
    assert grown < 4000  # kB; a dictionary would take 15,000


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    tally._database.execute("PRAGMA max_page_count = 8")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError, match=f"cannot write to {tmp_path}: .*full; make room there or set TMPDIR"):
        for number in range(10_000):
            tally.add(f"name {number}")
