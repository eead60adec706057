"""3,000 rows, killed ten times: on a quiet disk, and while the file system fails."""

import random
import signal
import time
from pathlib import Path

import pytest

from altdiffusion_clip.bulk.shards import read_shards
from tests.bulk.test_faults import rows_of
from tests.processes import Command
from tests.sources.faulty import fail_often
from tests.sources.sources import WRITERS

ROWS, KILLS = 3000, 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "tar"])
@pytest.mark.parametrize("is_failing", [False, True], ids=["quiet", "failing"])
def test_every_row_is_scored_once(kind: str, is_failing: bool, tmp_path: Path) -> None:
    rows = rows_of(ROWS, "faulty://")
    source = f"faulty://{WRITERS[kind](tmp_path, rows)}"
    command = ["score", source, "--shard-size", "100", "--dtype", "float32", "--workers", "0", "--attempts", "4"]
    command += ["--output", str(tmp_path / "scores")]
    generator, kills = random.Random(0), 0
    prepare = fail_often if is_failing else register
    while kills < KILLS:
        there = len(list((tmp_path / "scores").glob("part-*.parquet")))
        process = Command(command, tmp_path / "said", prepare)
        while process.returncode is None and len(list((tmp_path / "scores").glob("part-*.parquet"))) <= there:
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 0.3))
        assert process.returncode is None, process.stderr.read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    # Where the file system fails, a run may leave something to do; the same command does it.
    for _ in range(10):
        code = Command(command, tmp_path / "said", prepare).wait(600)
        if code == 0:
            break
    assert code == 0
    found = read_shards(tmp_path / "scores")
    assert sorted(row.row_id.rpartition(":")[2] for row in found) == [row["id"] for row in rows]
    assert all(row.scores for row in found)


def register() -> None:
    """Makes the file system known, without faults."""
