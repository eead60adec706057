"""`altdiffusion score` where things go wrong: no row is lost, none is scored twice, and every count is true."""

import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.bulk.scoring import Job, Report, score_sources
from altdiffusion_clip.bulk.shards import ShardFolder, read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.pictures import Preparation, Workers
from altdiffusion_clip.judges.preprocessing import TransformersPreprocess
from altdiffusion_clip.sources import places
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import same_place, stamp_of
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.rows import Source
from tests.conftest import in_full
from tests.pictures import held_out_pictures
from tests.sources.faulty import Faulty, UnavailableError
from tests.sources.sources import WRITERS, Rows, as_folder, as_jsonl, as_tar

PICTURES = held_out_pictures()
NO_WAIT = Retries(3, first_wait=0)
FAULTS: dict[str, Callable[[], BaseException | str]] = {
    "reset": lambda: ConnectionResetError("reset"),
    "time-out": lambda: TimeoutError("timed out"),
    "503": UnavailableError,
    "short read": lambda: "short",
    "permission": lambda: PermissionError("no"),
    "vanished": lambda: FileNotFoundError("gone"),
}


def rows_of(count: int, prefix: str = "") -> Rows:
    return [
        {"id": f"{number:04d}", "image": f"{prefix}{PICTURES[number % 40].path}", "text": f"a cat {number % 7}"}
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(load_panel("emoji-m18"))


@pytest.fixture(autouse=True)
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    Faulty.reset()
    monkeypatch.setattr(places, "BUFFER", 256)


def score(folder: Path, bench: Bench, *sources: str | Path, shard_size: int = 20, retry_errors: bool = False) -> Report:
    job = Job(tuple(Source(str(source)) for source in sources), shard_size, None, NO_WAIT, retry_errors)
    stamps = {same_place(source.place): stamp_of(source.place) for source in job.sources}
    shards = ShardFolder(folder, {"a": 1}, stamps)
    workers = Workers(bench.preparation(retries=NO_WAIT))
    with shards.locked():
        report = score_sources(job, shards, [bench], workers)
    workers.close()
    there = read_shards(folder)
    of_sources = sum(shard.scored + shard.failed + shard.to_do for shard in shards.shards())
    assert len(there) == len({row.row_id for row in there}) == of_sources, "none is doubled"
    assert report.scored == sum(bool(row.scores) for row in there)
    return report


@pytest.mark.parametrize("where", ["rows", "pictures"])
@pytest.mark.parametrize("fault", [*FAULTS, "outage"])
@pytest.mark.parametrize(
    "kind", ["tar", "jsonl", *in_full(*(kind for kind in WRITERS if kind not in ("tar", "jsonl")))]
)
def test_every_row_is_scored_after_one_more_run_at_most(
    kind: str, fault: str, where: str, tmp_path: Path, bench: Bench, undisturbed: dict[str, dict[str, float]]
) -> None:
    path = WRITERS[kind](tmp_path, rows_of(60, "faulty://"))
    inside = kind in ("tar", "parquet of pictures")
    raised = FAULTS.get(fault, FAULTS["reset"])
    passes = fault not in ("permission", "vanished")
    counted = iter(range(10**6))

    def rule(number: int, asked: str) -> BaseException | str | None:
        is_picture = asked.endswith(".png") and not inside
        if is_picture != (where == "pictures"):
            return None
        place = next(counted)
        is_due = 3 <= place < 23 if fault == "outage" else place in ((1, 4) if passes else (1,))
        return raised() if is_due else None

    source = f"faulty://{path}"
    Faulty.reset(rule, block_size=max(200, path.stat().st_size // 40))
    first = score(tmp_path / "scores", bench, source)
    if not (inside and where == "pictures"):
        assert next(counted) > 1, "the faults have come"
    if passes and fault != "outage":
        assert first.is_complete, "what passes at once is not seen"
    if not first.uncounted:
        assert first.scored + first.failed + first.to_do == 60
    if fault == "outage":
        Faulty.reset(block_size=Faulty.block_size)  # it ends between the runs
    again = score(tmp_path / "scores", bench, source, retry_errors=not passes)
    assert (again.scored, again.failed, again.to_do, again.unfinished) == (60, 0, 0, ())
    if kind not in undisturbed:
        assert score(tmp_path / "undisturbed", bench, path if inside or kind == "folder" else source).is_complete
        undisturbed[kind] = scores_in(tmp_path / "undisturbed")
    assert scores_in(tmp_path / "scores") == pytest.approx(undisturbed[kind], abs=1e-5)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, dict[str, float]]:
    """Scores by row of the kinds that have been scored without a fault."""
    return {}


def scores_in(folder: Path) -> dict[str, float]:
    return {row.row_id: row.scores[0] for row in read_shards(folder)}


def test_a_source_that_stays_away_does_not_keep_the_others(tmp_path: Path, bench: Bench) -> None:
    sources = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        rows = [{**row, "id": f"{number}-{row['id']}"} for row in rows_of(50)]
        sources.append(f"faulty://{as_jsonl(tmp_path / str(number), rows)}")
    asked = iter(range(10**6))

    def rule(_: int, path: str) -> BaseException | None:
        return ConnectionResetError("reset") if "/1/" in path and next(asked) > 1 else None

    Faulty.reset(rule, block_size=2048)
    report = score(tmp_path / "scores", bench, *sources)
    assert report.scored > 100
    ((place, reason),) = report.unfinished
    assert place.endswith("1/rows.jsonl")
    assert "breaks off (reset)" in reason
    assert report.uncounted == (place,)
    assert not report.is_complete
    assert score(tmp_path / "scores", bench, *sources).unfinished, "it stays so as long as the fault does"
    Faulty.reset()
    report = score(tmp_path / "scores", bench, *sources)
    assert (report.scored, report.is_complete) == (150, True)


def test_the_exit_code_is_that_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(PICTURES[0].path, tmp_path / "good.png")
    source = as_jsonl(tmp_path, [{"image": "good.png", "text": "猫"}, {"image": "late.png", "text": "猫"}])
    command = ["score", str(source), "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0", "--json"]
    for _ in range(2):
        assert main(command) == 1
        report = json.loads(capsys.readouterr().out)
        assert [report[key] for key in ("rows", "scored", "failed", "to_do")] == [2, 1, 1, 0]
    shutil.copy(PICTURES[1].path, tmp_path / "late.png")
    assert main(command) == 1, "what failed for good is not tried again"
    assert main([*command, "--retry-errors"]) == 0
    assert main(command) == 0
    assert [row.error for row in read_shards(tmp_path / "o")] == ["", ""]


class TestChangedInput:
    @pytest.fixture
    def sources(self, tmp_path: Path) -> list[Path]:
        found = []
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            rows = [{**row, "id": f"{number}-{row['id']}"} for row in rows_of(30)]
            found.append(as_jsonl(tmp_path / str(number), rows))
        return found

    def test_another_order_and_more_sources_go_on(self, tmp_path: Path, sources: list[Path], bench: Bench) -> None:
        assert score(tmp_path / "scores", bench, *sources[:2]).scored == 60
        assert score(tmp_path / "scores", bench, sources[1], sources[0]).scored == 60
        assert score(tmp_path / "scores", bench, sources[2], sources[1], sources[0]).scored == 90

    def test_a_source_that_is_away_is_not_a_change(
        self, tmp_path: Path, sources: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["score", *map(str, sources), "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0"]
        command += ["--json"]
        assert main(command[:3] + command[4:]) == 0
        sources[0].rename(tmp_path / "away")
        capsys.readouterr()
        assert main(command) == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["scored"], report["uncounted"]) == (90, [str(sources[0])])
        (tmp_path / "away").rename(sources[0])
        assert main(command) == 0

    def test_the_same_spelt_otherwise_is_the_same(self, tmp_path: Path, sources: list[Path], bench: Bench) -> None:
        assert score(tmp_path / "scores", bench, sources[0]).scored == 30
        spelt = [f"file://{sources[0]}", f"{sources[0].parent}/../0/rows.jsonl"]
        assert all(score(tmp_path / "scores", bench, place).scored == 30 for place in spelt)

    @pytest.mark.parametrize("change", ["rows added", "rows taken away", "texts changed", "another order"])
    def test_a_changed_source_is_refused(
        self, change: str, tmp_path: Path, sources: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["score", *map(str, sources), "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0"]
        assert main(command) == 0
        lines = sources[0].read_text(encoding="utf-8").splitlines(keepends=True)
        new = {
            "rows added": [*lines, lines[0]],
            "rows taken away": lines[:-1],
            "texts changed": [line.replace("cat", "dog") for line in lines],
            "another order": lines[::-1],
        }[change]
        sources[0].write_text("".join(new), encoding="utf-8")
        os.utime(sources[0], (1, 1))
        capsys.readouterr()
        assert main(command) == 2
        assert f"{sources[0]} has changed since it was scored" in capsys.readouterr().err
        assert main(["score", *map(str, sources[1:]), *command[4:]]) == 2
        assert f"has scores of {sources[0]} too; name it again" in capsys.readouterr().err


class TestShards:
    def test_damaged_and_missing_ones_are_made_again_alone(self, tmp_path: Path, bench: Bench) -> None:
        source = as_tar(tmp_path, rows_of(90))
        score(tmp_path / "scores", bench, source)
        before = read_shards(tmp_path / "scores")
        paths = sorted((tmp_path / "scores").glob("part-*.parquet"))
        assert len(paths) == 5
        times = {path: path.stat().st_mtime_ns for path in paths}
        paths[1].write_bytes(b"PAR1")
        paths[3].unlink()
        assert score(tmp_path / "scores", bench, source).is_complete
        assert read_shards(tmp_path / "scores") == before
        changed = {path for path in paths if path.stat().st_mtime_ns != times[path]}
        assert changed == {paths[1], paths[3]}

    def test_the_folder_opens_as_one_data_set(self, tmp_path: Path, bench: Bench) -> None:
        import pyarrow.dataset

        score(tmp_path / "scores", bench, as_jsonl(tmp_path, rows_of(30)))
        assert pyarrow.dataset.dataset(tmp_path / "scores").count_rows() == 30

    def test_a_second_run_on_the_folder_is_refused(
        self, tmp_path: Path, bench: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = as_jsonl(tmp_path, rows_of(3))
        command = ["score", str(source), "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0"]
        assert main(command) == 0
        capsys.readouterr()
        with ShardFolder.there(tmp_path / "o").locked():
            assert main(command) == 2
        assert f"another run is writing to {tmp_path / 'o'}; wait for its end, or stop it" in capsys.readouterr().err
        assert main(command) == 0

    def test_sources_of_one_name_have_rows_of_their_own(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sources = []
        for folder in ("x", "y"):
            (tmp_path / folder).mkdir()
            sources.append(str(as_tar(tmp_path / folder, rows_of(4), "0.tar")))
        assert main(["score", *sources, "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0"]) == 0
        assert len({row.row_id for row in read_shards(tmp_path / "o")}) == 8

    def test_one_bad_source_does_not_refuse_the_rest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "bad.tar").write_bytes(b"x" * 1000)
        source = as_tar(tmp_path, rows_of(4))
        command = ["score", str(tmp_path / "*.tar"), "--output", str(tmp_path / "o"), "--workers", "0", "--json"]
        assert main([*command, "--dtype", "float32"]) == 1
        captured = capsys.readouterr()
        report = json.loads(captured.out)
        assert report["scored"] == 4
        assert [one["source"] for one in report["unfinished"]] == [str(tmp_path / "bad.tar")]
        assert "bad.tar is not a plain tar file" in captured.err
        assert source.exists()


def test_files_that_are_passed_over_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = as_folder(tmp_path, rows_of(3))
    for name in ("a.psd", "b.PSD", "c.svg", "Makefile"):
        (place / name).touch()
    assert main(["score", str(place), "--output", str(tmp_path / "o"), "--dtype", "float32", "--workers", "0"]) == 0
    said = capsys.readouterr().err
    assert f"{place}: 4 files are no pictures and are passed over (.psd 2, .svg 1, Makefile 1)" in said


class TestOneRow:
    """Whatever is wrong with a row is said of that row."""

    @pytest.mark.full
    def test_a_worker_that_is_killed_loses_no_picture(self, bench: Bench) -> None:
        import psutil

        workers = Workers(bench.preparation(retries=NO_WAIT), 2)
        pictures = [Located(str(picture.path)) for picture in PICTURES[:60]] * 3
        found = []
        for place, prepared in workers.prepare(pictures):
            if place % 17 == 10:
                child = max(psutil.Process().children(recursive=True), key=lambda one: one.memory_info().rss)
                os.kill(child.pid, signal.SIGKILL)
            found.append((place, prepared.error))
        workers.close()
        assert found == [(place, "") for place in range(180)]

    @pytest.mark.parametrize("count", [0, *in_full(1)])
    def test_a_picture_that_ends_its_process_is_found(
        self, count: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        workers = Workers(bench.preparation(retries=NO_WAIT), count)
        if count:
            workers.preparation = _Deadly(workers.preparation)  # type: ignore[assignment]
        pictures: list[Located | bytes] = [Located(str(picture.path)) for picture in PICTURES[:12]]
        pictures[6] = b"deadly"
        errors = [prepared.error for _, prepared in workers.prepare(pictures)]
        workers.close()
        assert [place for place, error in enumerate(errors) if error] == [6]
        if count:
            assert errors[6] == "the process that decoded it ended; it may need more memory than there is"

    @pytest.mark.parametrize("kind", ["jsonl", "tar"])
    def test_a_text_that_was_cut_within_an_emoji_is_scored(self, kind: str, tmp_path: Path, bench: Bench) -> None:
        source, picture = tmp_path / f"rows.{kind}", Path(PICTURES[0].path)
        row = json.dumps({"image": str(picture), "text": "a cat \ud83d", "note": "\udc00"})
        if kind == "jsonl":
            source.write_text(row)
        else:
            (tmp_path / "0.json").write_text(row)
            with tarfile.open(source, "w") as tar:
                tar.add(tmp_path / "0.json", "0.json")
                tar.add(picture, "0.png")
        assert score(tmp_path / "scores", bench, source).scored == 1

    def test_two_models_prepare_at_their_own_sizes(self, bench: Bench) -> None:
        from transformers import CLIPImageProcessor

        side = {"height": 40, "width": 40}
        other = CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=side)
        own = bench.preprocesses[0]
        picture = [Located(str(PICTURES[0].path))]
        with Workers(Preparation((own, TransformersPreprocess.of(other)))) as workers:
            ((_, prepared),) = workers.prepare(picture)
        for inputs, expected in zip(prepared.inputs, (own.side, 40), strict=True):
            assert inputs["pixel_values"].shape == (3, expected, expected)

    def test_pictures_of_too_many_pixels_are_refused(self, tmp_path: Path, bench: Bench) -> None:
        Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
        workers = Workers(bench.preparation(max_pixels=19_999))
        ((_, prepared),) = workers.prepare([Located(str(tmp_path / "a.png"))])
        workers.close()
        assert prepared.error == "20000 pixels, where 19999 are allowed"

    def test_a_jpeg_of_more_pixels_than_pillow_allows_is_drafted(self, tmp_path: Path, bench: Bench) -> None:
        wall = Image.new("L", (16_000, 12_000), 200)
        wall.save(tmp_path / "wall.jpg", quality=20)
        wall.save(tmp_path / "progressive.jpg", quality=20, progressive=True)
        found = {}
        for exact in (True, False):
            workers = Workers(bench.preparation(exact=exact))
            ((_, found[exact]),) = workers.prepare([Located(str(tmp_path / "wall.jpg"))])
            workers.close()
        workers = Workers(bench.preparation())
        ((_, progressive),) = workers.prepare([Located(str(tmp_path / "progressive.jpg"))])
        workers.close()
        assert found[True].error == progressive.error == "too many pixels", "all of it would be held in memory"
        assert abs(int(found[False].inputs[0]["pixel_values"].mean()) - 200) <= 2

    def test_a_large_picture_scores_as_its_small_self(self, tmp_path: Path, bench: Bench) -> None:
        big = Image.open(PICTURES[0].path).convert("RGB").resize((5000, 4000), Image.Resampling.BICUBIC)
        big.save(tmp_path / "big.png", compress_level=1)
        pixels = []
        for exact in (True, False):
            workers = Workers(bench.preparation(exact=exact))
            ((_, prepared),) = workers.prepare([Located(str(tmp_path / "big.png"))])
            workers.close()
            pixels.append(prepared.inputs[0])
        exactly, reduced = bench.encoder.pictures(pixels)
        assert float(exactly @ reduced) > 0.999


class _Deadly:
    """Ends the process at a certain picture, as the kernel does where memory is short."""

    def __init__(self, prepare: Callable) -> None:
        self._prepare = prepare

    def __call__(self, pictures: list[Located | bytes]) -> object:
        if b"deadly" in pictures:
            os._exit(9)
        return self._prepare(pictures)


@pytest.mark.parametrize("kind", ["tar", "parquet of pictures"])
def test_what_holds_its_pictures_is_read_once(kind: str, tmp_path: Path, bench: Bench) -> None:
    path = WRITERS[kind](tmp_path, rows_of(300))
    for block_size in (5_000, 50_000):
        Faulty.reset(block_size=block_size)
        score(tmp_path / f"{block_size}", bench, f"faulty://{path}", shard_size=100)
        assert Faulty.bytes <= 1.2 * path.stat().st_size


def test_each_loose_file_is_asked_for_once(tmp_path: Path, bench: Bench) -> None:
    place = as_folder(tmp_path, rows_of(40))
    total = sum(path.stat().st_size for path in place.iterdir())
    Faulty.reset()
    score(tmp_path / "scores", bench, f"faulty://{place}")
    assert Faulty.bytes <= 1.05 * total
    assert Faulty.requests == 80, "a request for each picture and each text"
