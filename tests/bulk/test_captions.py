"""Rows with several captions: how `--captions` scores them."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.bulk.shards import read_shards
from tests.bulk.test_score import run, write_jsonl
from tests.conftest import in_full
from tests.pictures import held_out_pictures

PICTURES = held_out_pictures()
TEXTS = ("a cat", "a dog", "猫")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [
        {"id": f"row-{n}", "image": str(picture.path), "text": list(TEXTS)} for n, picture in enumerate(PICTURES[:30:6])
    ]
    rows[3]["text"] = "a cat"
    rows[4]["image"] = "nowhere.png"
    return write_jsonl(tmp_path / "rows.jsonl", rows)


def expected(scorer: AltCLIPScorer) -> np.ndarray:
    return scorer.similarity(list(TEXTS), [picture.path for picture in PICTURES[:24:6]]).T.numpy()


@pytest.mark.parametrize("mode", ["each", "first", "best", "mean"])
@pytest.mark.parametrize("kind", ["jsonl", *in_full("parquet", "tar")])
def test_scores(
    mode: str,
    kind: str,
    source: Path,
    tmp_path: Path,
    scorer: AltCLIPScorer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if kind != "jsonl":
        source = as_kind(kind, source)
    output = ["--output", str(tmp_path / "scores"), "--shard-size", "2", "--dtype", "float32", "--workers", "0"]
    code, out, _ = run(capsys, str(source), "--captions", mode, *output, "--json")
    report = json.loads(out)
    found = {row.row_id.rpartition(":")[2]: row for row in read_shards(tmp_path / "scores")}
    cosines = expected(scorer)
    if mode == "each":
        assert (code, report["scored"], report["failed"]) == ((1, 10, 3) if kind == "jsonl" else (0, 10, 0))
        for n in range(3):
            given = [found[f"row-{n}#{place}"].scores[0] for place in range(3)]
            np.testing.assert_allclose(given, cosines[n], atol=1e-5)
        assert found["row-3"].scores[0] == pytest.approx(cosines[3, 0], abs=1e-5)
        return
    assert (code, report["scored"], report["failed"]) == ((1, 4, 1) if kind == "jsonl" else (0, 4, 0))
    reduced = {"first": cosines[:, 0], "best": cosines.max(1), "mean": cosines.mean(1)}[mode]
    for n, value in enumerate([*reduced[:3], cosines[3, 0]]):
        assert found[f"row-{n}"].scores[0] == pytest.approx(value, abs=1e-5)


def test_what_failed_is_scored_again_alone(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(source), "--output", str(tmp_path / "scores"), "--dtype", "float32", "--workers", "0"]
    for mode in ("each", "best"):
        folder = ["--captions", mode, "--output", str(tmp_path / mode)]
        assert run(capsys, *command, *folder)[0] == 1
    shutil.copy(PICTURES[0].path, tmp_path / "nowhere.png")
    for mode, count in (("each", 13), ("best", 5)):
        folder = ["--captions", mode, "--output", str(tmp_path / mode)]
        code, out, _ = run(capsys, *command, *folder, "--retry-errors", "--json")
        assert (code, json.loads(out)["scored"]) == (0, count)
        assert len({row.row_id for row in read_shards(tmp_path / mode)}) == count


def test_other_captions_are_another_run(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(source), "--output", str(tmp_path / "scores"), "--dtype", "float32", "--workers", "0"]
    run(capsys, *command)
    code, _, err = run(capsys, *command, "--captions", "best")
    assert code == 2
    assert "another run (captions differ)" in err


def as_kind(kind: str, source: Path) -> Path:
    """The rows of JSON lines whose pictures are there, as another kind of source with the pictures inside."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()][:4]
    pictures = [Path(row["image"]).read_bytes() for row in rows]
    path = source.with_suffix(f".{kind}")
    if kind == "parquet":
        texts = [row["text"] if isinstance(row["text"], list) else [row["text"]] for row in rows]
        table = pyarrow.table({"id": [row["id"] for row in rows], "image": pictures, "text": texts})
        pyarrow.parquet.write_table(table, path)
        return path
    with tarfile.open(path, "w") as tar:
        for row, picture in zip(rows, pictures, strict=True):
            for ending, data in (("png", picture), ("json", json.dumps({"text": row["text"]}).encode())):
                info = tarfile.TarInfo(f"{row['id']}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path
