import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from altdiffusion_clip.training.data.arrays import Ragged, RaggedWriter, fill_rows, prepared


class TestFillRows:
    def test_rows_are_computed_once(self, tmp_path: Path) -> None:
        calls: list[int] = []

        def compute(start: int, stop: int) -> torch.Tensor:
            calls.append(start)
            return torch.arange(start, stop).float()[:, None].expand(-1, 3)

        for _ in range(2):
            rows = fill_rows(tmp_path / "a.bin", 10, (3,), "float32", compute, chunk=4)
            np.testing.assert_array_equal(rows[:, 0], np.arange(10))
        assert calls == [0, 4, 8]
        assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_rows_of_what_is_read_ahead(self, workers: int, tmp_path: Path) -> None:
        def read(start: int, stop: int) -> torch.Tensor:
            return torch.arange(start, stop)

        def compute(batch: torch.Tensor) -> torch.Tensor:
            return 2.0 * batch[:, None]

        rows = fill_rows(tmp_path / "a.bin", 10, (1,), "float32", compute, read=read, workers=workers, chunk=4)
        np.testing.assert_array_equal(rows[:, 0], 2 * np.arange(10))

    def test_none(self, tmp_path: Path) -> None:
        assert fill_rows(tmp_path / "a.bin", 0, (3,), "float32", lambda a, b: torch.zeros(0, 3)).shape == (0, 3)

    def test_a_disk_that_is_too_small_is_told_first(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="too little room"):
            fill_rows(tmp_path / "a.bin", 10**9, (10**6,), "float32", lambda a, b: torch.zeros(1))

    KILLED = """
    import sys, time, torch
    from pathlib import Path
    from altdiffusion_clip.training.data import arrays
    arrays.FLUSH_SECONDS = 0.0
    def compute(start, stop):
        time.sleep(0.02)
        print(start, flush=True)
        return torch.arange(start, stop).double()[:, None]
    arrays.fill_rows(Path(sys.argv[1]), 200, (1,), "float64", compute, chunk=2)
    """

    def test_what_a_killed_process_has_computed_stays(self, tmp_path: Path) -> None:
        import textwrap

        command = [sys.executable, "-c", textwrap.dedent(self.KILLED), str(tmp_path / "a.bin")]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        assert process.stdout is not None
        for _ in range(30):
            process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "a.bin").exists()
        again: list[int] = []

        def compute(start: int, stop: int) -> torch.Tensor:
            again.append(start)
            return torch.arange(start, stop).double()[:, None]

        rows = fill_rows(tmp_path / "a.bin", 200, (1,), "float64", compute, chunk=2)
        np.testing.assert_array_equal(rows[:, 0], np.arange(200))
        assert 30 < len(again) < 75


class TestRagged:
    def test_rows_padded_and_masked(self, tmp_path: Path) -> None:
        with RaggedWriter(tmp_path / "a", "int32") as writer:
            for row in ([1, 2, 3], [], [4]):
                writer.add(row)
        rows = Ragged(tmp_path / "a")
        values, mask = rows.padded([2, 0], value=9)
        assert values.tolist() == [[4, 9, 9], [1, 2, 3]]
        assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
        assert rows.lengths.tolist() == [3, 0, 1]

    def test_texts_and_states(self, tmp_path: Path) -> None:
        with RaggedWriter(tmp_path / "a", "uint8") as writer:
            writer.add_text("蓝色背景上的猫")
        assert Ragged(tmp_path / "a").text(0) == "蓝色背景上的猫"
        states = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float16)
        with RaggedWriter(tmp_path / "b", "float16", width=4) as writer:
            writer.add(states[:2])
            writer.add(states[2:])
        padded, _ = Ragged(tmp_path / "b").padded([0, 1])
        assert padded.shape == (2, 3, 4)
        np.testing.assert_array_equal(padded[1].numpy(), states[2:])


def test_a_folder_is_prepared_when_what_it_is_made_of_changes(tmp_path: Path) -> None:
    made: list[int] = []

    def prepare(folder: Path) -> None:
        made.append(0)
        (folder / "a").write_text("a")

    for source in ("x", "x", "y"):
        assert (prepared(tmp_path / "folder", {"source": source}, prepare) / "a").is_file()
    assert len(made) == 2

    def fails(folder: Path) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        prepared(tmp_path / "other", {}, fails)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
