"""Vectors that are written beside the scores, and taken instead of pictures and texts."""

import json
import shutil
from pathlib import Path

import pytest

from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.judges.embedding_files import read_embeddings
from tests.bulk.test_score import run, write_jsonl
from tests.pictures import held_out_pictures


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("vectors")
    copies = [folder / f"{number}.png" for number in range(12)]
    for picture, copy in zip(held_out_pictures()[::5], copies, strict=False):
        shutil.copy(picture.path, copy)
    source = write_jsonl(folder / "rows.jsonl", [{"image": str(copy), "text": "a cat"} for copy in copies])
    return source, copies


def test_all_four_commands_take_them_back(
    rows: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, copies = rows
    common = ["--dtype", "float32", "--workers", "0", "--shard-size", "5"]
    scores = ["--output", str(tmp_path / "scores"), "--embeddings"]
    assert run(capsys, str(source), *common, *scores)[0] == 0
    assert len(list((tmp_path / "scores").glob("part-*.safetensors"))) == 3
    there = [row.scores[0] for row in read_shards(tmp_path / "scores")]
    data = [copy.read_bytes() for copy in copies]
    for copy in copies:
        copy.write_bytes(b"no picture any more")
    try:
        vectors = ["--vectors", str(tmp_path / "scores"), "--judge", "emoji-m18"]
        assert run(capsys, str(source), *common, *vectors, "--output", str(tmp_path / "again"))[0] == 0
        again = [row.scores[0] for row in read_shards(tmp_path / "again")]
        assert again == pytest.approx(there, abs=1e-6)
        files = [str(copy) for copy in copies]
        assert main(["rerank", "a cat", *files, *vectors, "--no-cache", "--json"]) == 0
        ranked = {row["file"]: row["cosine"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
        assert [ranked[file] for file in files] == pytest.approx(there, abs=1e-5)
        file = tmp_path / "all.npz"
        command = ["embed", *files, "--texts", "a cat", *vectors, "--no-cache", "--output", str(file)]
        assert main(command) == 0
        stored = read_embeddings(file)
        assert stored.img_embedding @ stored.text_embedding[0] == pytest.approx(there, abs=1e-5)
        task = write_jsonl(tmp_path / "set.jsonl", [{"image": name, "captions": {"en": "a cat"}} for name in files])
        command = ["evaluate", "retrieval", "jsonl", str(task), *vectors, "--no-cache", "--json"]
        assert main(command) == 0
    finally:
        for copy, content in zip(copies, data, strict=True):
            copy.write_bytes(content)


def test_those_of_another_judge_are_refused(
    rows: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, copies = rows
    file = tmp_path / "teacher.npz"
    assert main(["embed", str(copies[0]), "--judge", "emoji-m18/teacher", "--output", str(file), "--no-cache"]) == 0
    capsys.readouterr()
    code, _, err = run(capsys, str(source), "--vectors", str(file), "--output", str(tmp_path / "scores"))
    assert code == 2
    assert "teacher.npz has vectors of another judge than emoji-m18" in err
