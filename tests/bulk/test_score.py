"""`altdiffusion score` on emoji rows."""

import csv
import io
import json
import os
import random
import shutil
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.encoding import Bench, fastest_batch_size
from altdiffusion_clip.judges.judging import Judged, judge_rows
from altdiffusion_clip.judges.pictures import Workers, default_workers
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.row import Row
from altdiffusion_clip.sources.rows import Source, read_rows
from tests.conftest import FULL
from tests.pictures import held_out_pictures
from tests.processes import Command

PICTURES = held_out_pictures()


def emoji_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Pictures with captions that are true of them, or of others."""
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        shown, said = generator.choice(PICTURES), generator.choice(PICTURES)
        said = shown if number % 2 else said
        language = generator.choice(LANGUAGES)
        text = captions(said.concept, said.colour, language)[0]
        rows.append({"id": f"row-{number}", "image": str(shown.path), "text": text, "language": language})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    judge = [] if "--judge" in arguments else ["--judge", "emoji-m18"]
    code = main(["score", *arguments, *judge, "--dtype", "float32", "--workers", "0"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def rows_of(source: Path) -> list[Row]:
    return [row for row, _ in read_rows(Source(str(source)))]


def bench_of(scorer: AltCLIPScorer) -> Bench:
    return Bench.of(AltCLIPJudge(scorer))


def random_picture(side: int) -> dict[str, np.ndarray]:
    return {"pixel_values": np.random.default_rng().integers(0, 256, (3, side, side), np.uint8)}


def test_scores_are_the_scorers(tmp_path: Path, scorer: AltCLIPScorer, capsys: pytest.CaptureFixture[str]) -> None:
    rows = emoji_rows(70)
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    command = [str(source), "--output", str(tmp_path / "scores"), "--shard-size", "32", "--min-cosine", "0.6", "--json"]
    code, out, _ = run(capsys, *command)
    assert code == 0
    scored = read_shards(tmp_path / "scores")
    assert [row.row_id for row in scored] == [row["id"] for row in rows]
    expected = scorer.score([row["text"] for row in rows], [row["image"] for row in rows])
    np.testing.assert_allclose([row.scores[0] for row in scored], expected.cosine.numpy(), atol=1e-5)
    kept = [
        json.loads(line) for p in sorted((tmp_path / "scores").glob("*.jsonl")) for line in p.open(encoding="utf-8")
    ]
    assert [row["id"] for row in kept] == [r.row_id for r in scored if r.scores[0] >= 0.6]
    assert kept[0].keys() == {"id", "image", "text", "language", "cosine"}
    report = json.loads(out)
    assert (report["rows"], report["scored"], report["kept"]) == (70, 70, len(kept))
    assert (report["failed"], report["to_do"], report["unfinished"]) == (0, 0, [])

    table = pyarrow.parquet.read_table(tmp_path / "scores" / "part-000000.parquet")
    assert table.column_names == ["row_id", "cosine", "clip_score", "error", "may_pass", "language"]
    assert json.loads(table.schema.metadata[b"units"])["clip_score"] == "100 max(cosine, 0)"
    first = table.to_pylist()[0]
    assert first["clip_score"] == pytest.approx(100 * max(first["cosine"], 0), abs=1e-4)


def as_csv(folder: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    path = folder / ("rows.csv" if delimiter == "," else "rows.tsv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(folder: Path, rows: list[dict[str, str]], pictures: str = "path") -> Path:
    import pyarrow
    import pyarrow.parquet

    table = {key: [row[key] for row in rows] for key in rows[0]}
    data = [Path(row["image"]).read_bytes() for row in rows]
    if pictures == "bytes":
        table["image"] = data
    elif pictures == "datasets":
        table["image"] = [{"bytes": item, "path": None} for item in data]
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "rows.parquet", row_group_size=5)
    return folder / "rows.parquet"


def as_tar(folder: Path, rows: list[dict[str, str]]) -> Path:
    with tarfile.open(folder / "rows.tar", "w") as tar:
        for number, row in enumerate(rows):
            for ending, data in (("png", Path(row["image"]).read_bytes()), ("txt", row["text"].encode())):
                info = tarfile.TarInfo(f"{number:04d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder / "rows.tar"


def as_folder(folder: Path, rows: list[dict[str, str]]) -> Path:
    for number, row in enumerate(rows):
        place = folder / "rows" / f"{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["image"], place / f"{number:04d}.png")
        (place / f"{number:04d}.txt").write_text(row["text"], encoding="utf-8")
    return folder / "rows"


def test_every_kind_of_source_gives_the_same(
    tmp_path: Path, scorer: AltCLIPScorer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = emoji_rows(12)
    expected = scorer.score([row["text"] for row in rows], [row["image"] for row in rows]).cosine.tolist()
    for name, write in {
        "jsonl": lambda folder: write_jsonl(folder / "rows.jsonl", rows),
        "csv": lambda folder: as_csv(folder, rows),
        "tsv": lambda folder: as_csv(folder, rows, "\t"),
        "parquet": lambda folder: as_parquet(folder, rows),
        "parquet, bytes": lambda folder: as_parquet(folder, rows, "bytes"),
        "parquet, datasets": lambda folder: as_parquet(folder, rows, "datasets"),
        "tar": lambda folder: as_tar(folder, rows),
        "url": lambda folder: write_jsonl(folder / "rows.jsonl", rows).as_uri(),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        code, _, _ = run(capsys, str(write(folder)), "--output", str(folder / "scores"), "--shard-size", "5")
        assert code == 0, name
        np.testing.assert_allclose(
            [r.scores[0] for r in read_shards(folder / "scores")], expected, atol=1e-5, err_msg=name
        )
    folder = tmp_path / "folder"
    folder.mkdir()
    assert run(capsys, str(as_folder(folder, rows)), "--output", str(folder / "scores"))[0] == 0
    by_id = {row.row_id: row.scores[0] for row in read_shards(folder / "scores")}
    for number, cosine in enumerate(expected):
        assert by_id[f"{number % 3}/{number:04d}.png"] == pytest.approx(cosine, abs=1e-5)


def test_relative_paths_and_other_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").mkdir()
    shutil.copy(PICTURES[0].path, tmp_path / "pictures" / "a.png")
    source = write_jsonl(tmp_path / "rows.jsonl", [{"url": "a.png", "caption": "猫"}])
    names = ["--image-column", "url", "--text-column", "caption", "--image-root", str(tmp_path / "pictures")]
    assert run(capsys, str(source), "--output", str(tmp_path / "scores"), *names)[0] == 0
    (row,) = read_shards(tmp_path / "scores")
    assert row.row_id == "rows.jsonl:0"
    assert row.scores[0] > 0.3
    source = write_jsonl(tmp_path / "beside.jsonl", [{"image": "pictures/a.png", "text": "猫"}])
    assert run(capsys, str(source), "--output", str(tmp_path / "beside"))[0] == 0
    assert read_shards(tmp_path / "beside")[0].scores[0] == pytest.approx(row.scores[0], abs=1e-6)


def test_rows_that_cannot_be_scored_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "half.png").write_bytes(PICTURES[0].path.read_bytes()[:200])
    good = str(PICTURES[0].path)
    lines = [
        json.dumps({"image": good, "text": "猫"}),
        json.dumps({"image": good, "text": "  "}),
        json.dumps({"image": good}),
        json.dumps({"text": "猫"}),
        json.dumps({"image": "nowhere.png", "text": "猫"}),
        json.dumps({"image": "empty.png", "text": "猫"}),
        json.dumps({"image": "half.png", "text": "猫"}),
        "{",
        "[1]",
        json.dumps({"image": good, "text": "狗"}),
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, out, _ = run(capsys, str(source), "--output", str(tmp_path / "scores"))
    assert code == 1
    assert "10 rows, 2 scored, 8 without a score" in out
    errors = [row.error for row in read_shards(tmp_path / "scores")]
    assert errors[0] == errors[9] == ""
    assert errors[1:6] == ["no text", "no text", "no image", "no such file", "an empty file"]
    assert errors[6].startswith("damaged")
    assert errors[7:9] == ["no JSON", "no JSON object"]


def test_pictures_and_texts_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be read is scored, whatever its mode; the rest has its reason; and the run goes on."""
    cat = Image.open(PICTURES[0].path).convert("RGB")
    cat.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    cat.quantize(64).save(tmp_path / "palette.png")
    sixteen = (np.asarray(cat.convert("L"), np.uint16) * 257).astype(np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    cat.rotate(90).save(tmp_path / "rotated.jpg", exif=exif, quality=95)
    cat.save(tmp_path / "animated.gif", save_all=True, append_images=[cat.rotate(180)], duration=100)
    Image.new("1", (10_000, 10_000)).save(tmp_path / "hundred-megapixels.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    good = ["cmyk.jpg", "palette.png", "sixteen.png", "rotated.jpg", "animated.gif"]
    lines = [json.dumps({"image": name, "text": "蓝色背景上的猫"}).encode() for name in good]
    lines += [json.dumps({"image": name, "text": "猫"}).encode() for name in ("hundred-megapixels.png", "bomb.png")]
    lines.append(json.dumps({"image": "palette.png", "text": "猫" * 10_000_000}, ensure_ascii=False).encode())
    lines.append(b'{"image": "palette.png", "text": "\xff\xfe"}')
    lines.append(json.dumps({"image": "palette.png", "text": "猫 " * 200}).encode())
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    code, out, err = run(capsys, str(source), "--output", str(tmp_path / "scores"))
    assert code == 1
    assert "10 rows, 6 scored, 4 without a score" in out
    assert len(err) < 5_000, "what is cut from a long text is quoted, but not all of it"
    rows = read_shards(tmp_path / "scores")
    assert [row.error for row in rows[5:9]] == [
        "too many pixels",
        "too many pixels",
        "a text of 10000000 characters, where 100000 are allowed",
        "not UTF-8; name its --encoding, such as gb18030 or utf-16",
    ]
    as_it_is = AltCLIPScorer.from_pretrained("emoji-m18").eval().score("蓝色背景上的猫", cat).cosine.item()
    for name, row in zip(good, rows, strict=False):
        assert bool(row.scores)
        assert row.scores[0] == pytest.approx(as_it_is, abs=1.0 if name == "sixteen.png" else 0.05), name


def test_several_devices_score_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", emoji_rows(150))
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        arguments = ["--device", device, "--batch-size", "16", "--output", str(tmp_path / name)]
        assert run(capsys, str(source), *arguments)[0] == 0
    one, two = read_shards(tmp_path / "one"), read_shards(tmp_path / "two")
    assert [row.scores[0] for row in two] == pytest.approx([row.scores[0] for row in one], abs=1e-6)


def test_each_distinct_text_and_picture_is_encoded_once(tmp_path: Path, scorer: AltCLIPScorer) -> None:
    copy = tmp_path / "copy.png"
    shutil.copy(PICTURES[0].path, copy)
    bench = bench_of(scorer)
    encoder = bench.encoder
    seen = {"texts": 0, "pictures": 0}
    texts, begin = encoder.judge.text_features, encoder.begin
    encoder.judge.text_features = lambda given: (seen.update(texts=seen["texts"] + len(given)), texts(given))[1]
    encoder.begin = lambda given: (seen.update(pictures=seen["pictures"] + len(given)), begin(given))[1]
    source = write_jsonl(
        tmp_path / "rows.jsonl",
        [
            {"image": str(path), "text": text}
            for path in (PICTURES[0].path, copy, PICTURES[4].path)
            for text in "猫狗猫"
        ],
    )
    with Workers(bench.preparation()) as workers:
        _, scored = judge_rows(rows_of(source), [bench], workers)
    assert seen == {"texts": 2, "pictures": 2}
    assert scored[0].scores == scored[3].scores == scored[5].scores


@pytest.mark.full
def test_worker_processes_and_threads_prepare_the_same(scorer: AltCLIPScorer) -> None:
    pictures = [Located(str(picture.path)) for picture in PICTURES[:40]]
    pixels = []
    for count in (0, 2):
        with Workers(bench_of(scorer).preparation(), count) as workers:
            pixels.append(np.stack([prepared.inputs[0]["pixel_values"] for _, prepared in workers.prepare(pictures)]))
    np.testing.assert_array_equal(*pixels)


def test_preparing_is_what_the_processor_does(scorer: AltCLIPScorer) -> None:
    bench = bench_of(scorer)
    with Workers(bench.preparation()) as workers:
        inputs = [p.inputs[0] for _, p in workers.prepare([Located(str(picture.path)) for picture in PICTURES[:5]])]
    expected, _ = scorer.encode_images([picture.path for picture in PICTURES[:5]])
    torch.testing.assert_close(bench.encoder.pictures(inputs), expected, atol=1e-5, rtol=0)


def test_a_batch_that_memory_does_not_hold_is_halved_until_it_does(
    scorer: AltCLIPScorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = bench_of(scorer).encoder
    side = scorer.config.vision_config.image_size
    pixels = [random_picture(side) for _ in range(21)]
    expected = encoder.pictures(pixels)
    features, sizes = scorer.get_image_features, []

    def in_little_memory(pixel_values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixel_values))
        if len(pixel_values) > 6:
            raise torch.OutOfMemoryError("out of memory")
        return features(pixel_values)

    monkeypatch.setattr(scorer, "get_image_features", in_little_memory)
    torch.testing.assert_close(encoder.pictures(pixels), expected, atol=1e-5, rtol=0)
    assert sizes == [21, 10, 5, 5, 10, 5, 5, 1]
    assert encoder.batch_size == 5
    assert "batches of 10 pictures do not fit; going on with 5" in caplog.text
    monkeypatch.setattr(scorer, "get_image_features", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(torch.OutOfMemoryError):
        encoder.pictures(pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_a_gpu_begins_is_what_a_cpu_gives(scorer: AltCLIPScorer) -> None:
    import copy

    side = scorer.config.vision_config.image_size
    batches = [[random_picture(side) for _ in range(9)] for _ in range(6)]
    expected = [bench_of(scorer).encoder.pictures(batch) for batch in batches]
    encoder = bench_of(copy.deepcopy(scorer).cuda()).encoder
    begun = [encoder.begin(batch) for batch in batches]
    for wait, there in zip(begun, expected, strict=True):
        torch.testing.assert_close(wait(), there, atol=1e-3, rtol=0)
    assert fastest_batch_size(encoder.judge) >= encoder.batch_size


def test_workers_are_those_that_the_tower_leaves_cores_for() -> None:
    assert [default_workers(False, cores) for cores in (1, 2, 4, 64)] == [0, 0, 2, 8]
    assert [default_workers(True, cores) for cores in (1, 2, 4, 64)] == [0, 0, 2, 62]
    assert default_workers(True) <= (os.cpu_count() or 1)


def test_drafts_of_large_jpegs_score_within_two_thousandths(tmp_path: Path, scorer: AltCLIPScorer) -> None:
    rows = []
    for number, picture in enumerate(PICTURES[:60:5]):
        path = tmp_path / f"{number}.jpg"
        Image.open(picture.path).convert("RGB").resize((1024, 768), Image.Resampling.BICUBIC).save(path, quality=92)
        rows.append({"image": str(path), "text": captions(picture.concept, picture.colour, "zh")[0]})
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    bench, cosines = bench_of(scorer), {}
    for exact in (True, False):
        with Workers(bench.preparation(exact)) as workers:
            cosines[exact] = [row.scores[0] for row in judge_rows(rows_of(source), [bench], workers)[1]]
    np.testing.assert_allclose(cosines[False], cosines[True], atol=2e-3)
    assert cosines[False] != cosines[True]


def test_killed_at_random_and_resumed_is_the_undisturbed_run(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", emoji_rows(150))
    command = ["score", source, "--shard-size", "25"]
    command += ["--dtype", "float32", "--workers", "0", "--min-cosine", "0.5", "--output"]
    assert Command([*command, tmp_path / "whole"], tmp_path).wait() == 0
    generator = random.Random(0)
    kills = 0
    for _ in range(40 if FULL else 3):
        process = Command([*command, tmp_path / "killed"], tmp_path)
        wanted = len(list((tmp_path / "killed").glob("part-*.parquet"))) + 1
        while process.returncode is None and not (tmp_path / "killed" / f"part-{wanted - 1:06d}.parquet").is_file():
            time.sleep(0.02)
        time.sleep(generator.uniform(0, 0.1))
        if process.returncode is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 3
    assert Command([*command, tmp_path / "killed"], tmp_path).wait() == 0
    assert read_shards(tmp_path / "killed") == read_shards(tmp_path / "whole")
    for path in (tmp_path / "whole").glob("part-*.jsonl"):
        assert (tmp_path / "killed" / path.name).read_bytes() == path.read_bytes()


def test_a_folder_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", emoji_rows(5))
    output = ["--output", str(tmp_path / "scores")]
    assert run(capsys, str(source), *output)[0] == 0
    code, _, err = run(capsys, str(source), *output, "--min-cosine", "0.5")
    assert code == 2
    assert "holds scores of another run (min_cosine differ); choose another --output folder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{tmp}/none.jsonl", "there is no"),
        ("{tmp}/rows.txt", "cannot read .txt"),
        ("{tmp}/rows.csv", "image and text are expected, or name others with --image-column"),
        ("{tmp}/rows.parquet", "cannot be read"),
        ("{tmp}/rows.tar", "is not a plain tar file"),
        ("nosuch://a/b.jsonl", "cannot reach nosuch:// (Protocol not known: nosuch)"),
        ("{tmp}/rows.jsonl --shard-size 0", "--shard-size must be 1 or more"),
        ("{tmp}/rows.jsonl --min-cosine 20", "--min-cosine must be between -1 and 1"),
        ("{tmp}/rows.jsonl --model {tmp}", "no AltCLIP|cannot load|model_index|config"),
    ],
)
def test_wrong_calls(arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (
        ("rows.txt", "a"),
        ("rows.csv", "a,b\n1,2\n"),
        ("rows.parquet", "x"),
        ("rows.tar", "x" * 600),
    ):
        (tmp_path / name).write_text(content)
    write_jsonl(tmp_path / "rows.jsonl", emoji_rows(1))
    code, out, err = run(capsys, *arguments.format(tmp=tmp_path).split(), "--output", str(tmp_path / "scores"))
    assert (code, out) == (2, "")
    assert any(part in err for part in message.split("|")), err
    assert not list((tmp_path / "scores").glob("part-*")) if (tmp_path / "scores").is_dir() else True


def test_a_model_that_gives_no_number(scorer: AltCLIPScorer, tmp_path: Path) -> None:
    import copy

    broken = copy.deepcopy(scorer)
    with torch.no_grad():
        broken.text_projection.weight.fill_(torch.nan)
    bench = bench_of(broken)
    source = write_jsonl(tmp_path / "rows.jsonl", emoji_rows(2))
    with Workers(bench.preparation()) as workers:
        _, judged = judge_rows(rows_of(source), [bench], workers)
    assert judged == [Judged(error="the score is not a number")] * 2
