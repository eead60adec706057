"""Scoring and drawing on a Ray cluster of two nodes on this machine; in a slow test one of them is lost in mid-run."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import ImageChops

from altdiffusion_clip.bulk.ray_engine import _check_address, cut_into_shards
from altdiffusion_clip.bulk.shards import Scored, Span, read_shards
from altdiffusion_clip.drawing.log import read_results
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import load_image
from tests.bulk.test_faults import rows_of
from tests.bulk.test_score import emoji_rows, run, write_jsonl
from tests.sources.faulty import LOG
from tests.sources.sources import WRITERS

cluster_utils = pytest.importorskip("ray.cluster_utils")
ray = pytest.importorskip("ray")

# A node's memory monitor reads the whole machine's, and would end actors for what other programs use.
os.environ["RAY_MEMORY_MONITOR_REFRESH_MS"] = "0"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    # What Ray starts finds the file system that fails.
    root = Path(__file__).parents[2]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root / "tests" / "bulk" / "on_ray"), str(root)])
    os.environ[LOG] = str(tmp_path_factory.mktemp("faulty") / "requests")
    ray.shutdown()  # what another test of this process has started
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000},
    )
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    del os.environ["PYTHONPATH"], os.environ[LOG]


def scores_of(rows: list[Scored]) -> list[float | None]:
    return [row.scores[0] if row.scores else None for row in rows]


@pytest.fixture
def second(cluster) -> object:
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    cluster.wait_for_nodes()
    return node


@pytest.mark.full
def test_the_same_rows_as_on_one_machine(tmp_path: Path, second, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(write_jsonl(tmp_path / f"{number}.jsonl", emoji_rows(70, seed=number))) for number in range(2)]
    (tmp_path / "2.jsonl").write_text('{"image": "nowhere.png", "text": "猫", "id": "bad"}\n', encoding="utf-8")
    sources.append(str(tmp_path / "2.jsonl"))
    common = ["--shard-size", "20", "--min-cosine", "0.5", "--output"]
    on_ray = ["--engine", "ray", "--actors", "2"]
    assert run(capsys, *sources, *common, str(tmp_path / "here"))[0] == 1
    code, out, _ = run(capsys, *sources, *on_ray, *common, str(tmp_path / "ray"))
    assert code == 1, "a row has no score"
    assert "141 rows, 140 scored, 1 without a score" in out
    scored, expected = read_shards(tmp_path / "ray"), read_shards(tmp_path / "here")
    assert [row.row_id for row in scored] == [row.row_id for row in expected]
    assert scores_of(scored) == pytest.approx(scores_of(expected), abs=1e-5)
    for path in (tmp_path / "here").glob("part-*.jsonl"):
        assert path.read_text().count("\n") == (tmp_path / "ray" / path.name).read_text().count("\n")

    (tmp_path / "ray" / "part-000003.parquet").unlink()
    _, out, _ = run(capsys, *sources, *on_ray, *common, str(tmp_path / "ray"))
    assert "141 rows, 140 scored" in out
    assert read_shards(tmp_path / "ray") == scored

    # A run begun on one engine ends on the other, in the middle of a source too.
    both = [*common, str(tmp_path / "both")]
    run(capsys, *sources, *both)
    for number in (1, 2, 6):
        (tmp_path / "both" / f"part-{number:06d}.parquet").unlink()
    code, out, _ = run(capsys, *sources, *on_ray, *both)
    assert (code, "141 rows, 140 scored, 1 without a score" in out) == (1, True)
    found = read_shards(tmp_path / "both")
    assert [row.row_id for row in found] == [row.row_id for row in expected]
    assert scores_of(found) == pytest.approx(scores_of(expected), abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["jsonl", "tar"])
def test_a_file_system_that_fails(
    kind: str, tmp_path: Path, cluster, second, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(200, "faulty://")
    source = f"faulty://{WRITERS[kind](tmp_path, rows)}"
    command = [source, "--shard-size", "20", "--engine", "ray", "--actors", "2", "--attempts", "3"]
    runs = 0
    while run(capsys, *command, "--output", str(tmp_path / "scores"))[0] != 0:
        runs += 1
        assert runs < 10
    found = read_shards(tmp_path / "scores")
    assert sorted(row.row_id.rpartition(":")[2] for row in found) == [row["id"] for row in rows]
    assert all(row.scores for row in found)


@pytest.mark.full
def test_tars_are_read_once(tmp_path: Path, cluster, second, capsys: pytest.CaptureFixture[str]) -> None:
    sources = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        sources.append(WRITERS["tar"](tmp_path / str(number), rows_of(100)))
    requests = Path(os.environ[LOG])
    requests.with_name("quiet").touch()
    requests.unlink(missing_ok=True)
    command = [f"faulty://{source}" for source in sources]
    command += ["--shard-size", "30", "--engine", "ray", "--actors", "2", "--output", str(tmp_path / "scores")]
    assert run(capsys, *command)[0] == 0
    requests.with_name("quiet").unlink()
    assert len({row.row_id for row in read_shards(tmp_path / "scores")}) == 300
    lines = [line.split(maxsplit=1) for line in requests.read_text().splitlines()]
    for source in sources:
        read = sum(int(count) for count, path in lines if path == str(source))
        assert read <= 1.2 * source.stat().st_size


@contextmanager
def losing(cluster, node: object, folder: Path, files: str, after: int) -> Iterator[list[int]]:
    """Takes a node away when there are so many files; in the end the list says how many there were."""
    lost_after: list[int] = []

    def lose() -> None:
        deadline = time.monotonic() + 120
        while len(list(folder.glob(files))) < after and time.monotonic() < deadline:
            time.sleep(0.01)
        lost_after.append(len(list(folder.glob(files))))
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield lost_after
    finally:
        thread.join()


@pytest.mark.slow
def test_a_node_is_lost_in_mid_run(tmp_path: Path, cluster, second, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_jsonl(tmp_path / "rows.jsonl", emoji_rows(2000)))
    common = [source, "--shard-size", "60", "--output"]
    folder = tmp_path / "ray"
    with losing(cluster, second, folder, "part-*.parquet", 6) as lost_after:
        code, out, _ = run(capsys, "--engine", "ray", "--actors", "2", *common, str(folder))
    assert 6 <= lost_after[0] < 34, "in mid-run"
    assert code == 0
    assert "2000 rows, 2000 scored, 0 without a score" in out
    run(capsys, *common, str(tmp_path / "here"))
    scored, expected = read_shards(folder), read_shards(tmp_path / "here")
    assert [row.row_id for row in scored] == [row.row_id for row in expected]
    assert scores_of(scored) == pytest.approx(scores_of(expected), abs=1e-5)


@pytest.mark.full
def test_drawing(tmp_path: Path, cluster, capsys: pytest.CaptureFixture[str]) -> None:
    from altdiffusion_clip.cli import main

    arguments = ["generate", "猫", "a dog", "--num-images", "2", "--steps", "2", "--output"]
    assert main([*arguments, str(tmp_path / "here")]) == 0
    assert main([*arguments, str(tmp_path / "ray"), "--engine", "ray"]) == 0
    capsys.readouterr()
    here, there = read_results(tmp_path / "here"), read_results(tmp_path / "ray")
    assert [(row["prompt"], row["seed"], row["rank"]) for row in there] == [
        (row["prompt"], row["seed"], row["rank"]) for row in here
    ]
    for row in here:
        pictures = (load_image(tmp_path / place / row["file"]) for place in ("here", "ray"))
        _, most = zip(*ImageChops.difference(*pictures).getextrema(), strict=True)
        assert max(most) <= 1


@pytest.mark.slow
def test_a_node_is_lost_while_pictures_are_drawn(
    tmp_path: Path, cluster, second, capsys: pytest.CaptureFixture[str]
) -> None:
    from altdiffusion_clip.cli import main

    common = [
        "generate",
        "猫",
        "a dog",
        "ein Auto",
        "--num-images",
        "60",
        "--steps",
        "2",
        "--judge",
        "none",
        "--output",
    ]
    folder = tmp_path / "ray"
    with losing(cluster, second, folder, "*-seed*.png", 20) as lost_after:
        assert main([*common, str(folder), "--engine", "ray", "--actors", "2"]) == 0
    assert 20 <= lost_after[0] < 180, "in mid-run"
    assert main([*common, str(tmp_path / "here")]) == 0
    capsys.readouterr()
    here, there = read_results(tmp_path / "here"), read_results(folder)
    assert [row["name"] for row in there] == [row["name"] for row in here]
    assert len((folder / "results.jsonl").read_text("utf-8").splitlines()) == 180, "none twice"
    assert all((folder / row["file"]).read_bytes() == (tmp_path / "here" / row["file"]).read_bytes() for row in here)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray", "--actors", "0"], "--actors must be 1 or more"),
        (["--address", "auto"], "add --engine ray"),
        (["--engine", "ray", "--gpus-per-actor", "-1"], "must be 0 or more"),
    ],
)
def test_wrong_calls(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", emoji_rows(1))
    code, _, err = run(capsys, str(source), "--output", str(tmp_path / "out"), *arguments)
    assert code == 2
    assert message in err


def test_no_cluster_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(UserError, match="there is no Ray cluster at"):
            _check_address(address)


def test_shards_cover_every_row_once() -> None:
    shards = list(cut_into_shards([Span("a", 0, 7), Span("c", 0, 1), Span("d", 3, 12, offset=9)], 5))
    rows = [(span.source, span.start + i) for shard in shards for span in shard for i in range(span.count)]
    assert rows == [*(("a", i) for i in range(7)), ("c", 0), *(("d", i) for i in range(3, 15))]
    assert [sum(span.count for span in shard) for shard in shards] == [5, 5, 5, 5]
    offsets = {(span.source, span.start): span.offset for shard in shards for span in shard}
    assert offsets[("d", 3)] == 9, "bytes of a source are known where a gap begins"
    assert all(offset is None for place, offset in offsets.items() if place != ("d", 3))
