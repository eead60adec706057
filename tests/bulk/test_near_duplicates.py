"""Pictures that are nearly the same: of each group the best stays."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from altdiffusion_clip.bulk import near_duplicates as module
from altdiffusion_clip.bulk.near_duplicates import Pictured, near_duplicates, read_duplicates, write_duplicates
from altdiffusion_clip.cli import main
from tests.pictures import held_out_pictures
from tests.processes import Command
from tests.sources.sources import WRITERS

LEAST = 0.95


def clusters(count: int, groups: int, seed: int = 0, dim: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around some centres, and made-up scores."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(groups, dim))
    vectors = centres[generator.integers(0, groups, count)] + 0.25 * generator.normal(size=(count, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), generator.random(count)


def slow(vectors: np.ndarray, scores: np.ndarray) -> set[int]:
    """The places that stay, found one by one."""
    stays: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        if not stays or (vectors[stays] @ vectors[place]).max() < LEAST:
            stays.append(int(place))
    return set(stays)


def parts(vectors: np.ndarray, scores: np.ndarray, size: int) -> list[Pictured]:
    found = []
    for start in range(0, len(vectors), size):
        places = range(start, min(start + size, len(vectors)))
        names = [f"p{place}" for place in places]
        own = dict(zip(names, vectors[start : start + size], strict=True))
        found.append(Pictured([f"r{place}" for place in places], scores[start : start + size], names, own))
    return found


class TestGreedy:
    @pytest.mark.parametrize(("count", "groups"), [(1, 1), (50, 3), (3000, 400), (2500, 1)])
    def test_it_is_what_a_slow_search_finds(self, count: int, groups: int) -> None:
        vectors, scores = clusters(count, groups)
        found = near_duplicates(parts(vectors, scores, 700), LEAST)
        stays = slow(vectors, scores)
        assert {int(row[1:]) for row in found} == set(range(count)) - stays
        for row, (other, cosine) in found.items():
            assert int(other[1:]) in stays
            assert scores[int(other[1:])] >= scores[int(row[1:])]
            assert cosine == pytest.approx(float(vectors[int(row[1:])] @ vectors[int(other[1:])]), abs=1e-5)
            assert cosine >= LEAST

    def test_an_index_finds_nearly_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "EXACT", 0)
        vectors, scores = clusters(6000, 700, dim=48)
        found = {int(row[1:]) for row in near_duplicates(parts(vectors, scores, 1000), LEAST)}
        expected = set(range(6000)) - slow(vectors, scores)
        assert len(found ^ expected) <= 0.01 * len(expected)

    def test_rows_of_one_picture_stay_or_go_together(self) -> None:
        a, b, c = (np.float32(v) / np.linalg.norm(v) for v in ([1, 0, 0], [1, 0.1, 0], [0, 0, 1]))
        one = Pictured(["a-en", "a-zh", "b-en"], np.array([0.1, 0.8, 0.5]), ["a", "a", "b"], {"a": a, "b": b})
        two = Pictured(["b-zh", "c"], np.array([0.2, 0.3]), ["b", "c"], {"b": b, "c": c})
        found = near_duplicates([one, two], LEAST)
        assert found == {row: ("a-zh", pytest.approx(float(a @ b))) for row in ("b-en", "b-zh")}

    def test_nothing_competes(self) -> None:
        assert near_duplicates([], LEAST) == {}

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        for found in ({}, {"a": ("b", 0.97), "猫": ("b", 1.0)}):
            write_duplicates(tmp_path / "found.parquet", found)
            assert read_duplicates(tmp_path / "found.parquet") == found


def alike_rows(folder: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Rows of 24 pictures, every second one twice more as it is saved again; and of each copy what it is a copy of."""
    rows, copies = [], {}
    for number, picture in enumerate(held_out_pictures()[:96:4]):
        whole = Image.open(picture.path).convert("RGB").resize((96, 96))
        for copy in range(3 if number % 2 else 1):
            name = f"{number:02d}-{copy}"
            path = folder / f"{name}.jpg"
            whole.save(path, quality=95 - 10 * copy)
            rows.append({"id": name, "image": str(path), "text": picture.concept.names["en"], "language": "en"})
            if copy:
                copies[name] = f"{number:02d}-0"
    return rows, copies


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["filter", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {"err": captured.err}


@pytest.fixture(params=["jsonl", "tar"])
def scored(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "pictures").mkdir()
    rows, self_copies = alike_rows(tmp_path / "pictures")
    (tmp_path / "copies.json").write_text(json.dumps(self_copies))
    source = WRITERS[request.param](tmp_path, rows)
    score = ["score", str(source), "--output", str(tmp_path / "scores"), "--embeddings", "--shard-size", "7"]
    assert main([*score, "--workers", "0", "--dtype", "float32"]) == 0
    capsys.readouterr()
    return tmp_path / "scores"


def rejected_of(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / "rejected").rglob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_copies_that_were_saved_again_are_rejected(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = run(capsys, scored, "--output", tmp_path / "out", "--near-duplicates", "0.98")
    assert (code, report["rows"], report["kept"]) == (0, 48, 24)
    assert report["rejected"] == {"near duplicate": 24}
    for row in rejected_of(tmp_path / "out"):
        number = row["id"].split("-")[0][-2:]
        assert row["like"].split("-")[0].endswith(number)
        assert row["reason"].startswith("near duplicate (cosine 0.9") or "cosine 1.0" in row["reason"]


def test_a_row_that_another_rule_rejects_takes_no_other_with_it(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [scored, "--output", tmp_path / "out", "--near-duplicates", "0.98", "--top", "50%"]
    code, report = run(capsys, *command)
    assert (code, report["rows"]) == (0, 48)
    assert report["rejected"]["cosine too low"] == 24
    kept = {row["id"] for row in rejected_of(tmp_path / "out") if "too low" not in row["reason"]}
    assert report["kept"] == 24 - len(kept)
    assert run(capsys, *command) == (code, report), "what was found is read again"
    code, said = run(capsys, *command[:4], "0.9", *command[5:])
    assert code == 2
    assert "another filter kept" in said["err"]


def test_it_needs_vectors_and_a_cosine(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("0", "1.5", "nan"):
        code, said = run(capsys, scored, "--output", tmp_path / "out", "--near-duplicates", value)
        assert code == 2
        assert "give a cosine above 0 and up to 1" in said["err"]
    for path in scored.glob("*.safetensors"):
        path.unlink()
    code, said = run(capsys, scored, "--output", tmp_path / "out", "--near-duplicates", "0.9")
    assert code == 2
    assert "score with --embeddings" in said["err"]


@pytest.mark.full
def test_killed_while_it_looks_it_begins_anew(scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["filter", str(scored), "--output", str(tmp_path / "out"), "--near-duplicates", "0.98"]
    for number in range(5):
        process = Command(command, tmp_path / "said")
        time.sleep(0.1 + 0.3 * number)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
    code, report = run(capsys, *command[1:])
    assert (code, report["rows"], report["kept"]) == (0, 48, 24)
