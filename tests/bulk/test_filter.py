"""`altdiffusion filter`: what is kept, what is rejected and why, and that the two are all."""

import json
import random
import signal
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.bulk.filtering import Criterion
from altdiffusion_clip.bulk.shards import Scored, ShardFolder, Span
from altdiffusion_clip.bulk.thresholds import order_statistics, quantiles
from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.places import same_place, stamp_of
from altdiffusion_clip.sources.rows import Source, read_rows
from tests.bulk.test_faults import rows_of
from tests.conftest import FULL, in_full
from tests.pictures import held_out_pictures
from tests.processes import Command
from tests.sources.sources import WRITERS

LANGUAGES = ["en", "zh", "th"]


def scored_folder(folder: Path, sources: list[Path], scores: list[Scored], shard_size: int = 7) -> Path:
    """Shards of made-up scores of the rows of some sources, in order."""
    places = {same_place(str(source)): stamp_of(str(source)) for source in sources}
    plan = {"columns": ["image", "text", "language", "id"], "image_root": "", "encoding": "", "captions": "best"}
    judges = [{"name": "emoji-m18", "measure": "cosine"}, {"name": "sharp", "measure": "score"}]
    shards = ShardFolder(folder, {**plan, "judges": judges}, places)
    each = iter(scores)
    number = 0
    for source in sources:
        count = sum(1 for _ in read_rows(Source(str(source))))
        for start in range(0, count, shard_size):
            part = [next(each) for _ in range(min(shard_size, count - start))]
            shards.write(number, part, [Span(same_place(str(source)), start, len(part))])
            number += 1
    return folder


def made_up(count: int, seed: int = 0) -> list[Scored]:
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        language = generator.choice(LANGUAGES)
        # Each language has a level of its own.
        cosine = float(np.float32(generator.gauss(0.2 + 0.1 * LANGUAGES.index(language), 0.05)))
        rows.append(Scored(f"{number:04d}", (cosine, generator.random()), language=language))
    return rows


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["filter", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {"err": captured.err}


def texts_in(path: Path) -> list[str]:
    return [row.text for row, _ in read_rows(Source(str(path)))]


class TestThresholds:
    @pytest.mark.parametrize("kind", ["normal", "negative", "ties", "one", "tiny", "huge"])
    def test_order_statistics_and_quantiles_are_numpys(self, kind: str) -> None:
        generator = np.random.default_rng(0)
        scores = {
            "normal": generator.normal(0, 1, 5000),
            "negative": -generator.random(1000),
            "ties": generator.integers(-2, 3, 1000) / 4,
            "one": np.array([0.25]),
            "tiny": generator.normal(0, 1e-40, 999),
            "huge": generator.normal(0, 1e37, 1001),
        }[kind].astype(np.float32)
        parts = np.array_split(scores, 7)
        ranks = sorted({0, len(scores) // 3, len(scores) - 1})
        found = order_statistics(lambda: (("a", part) for part in parts), {"a": ranks})
        assert found["a"] == {rank: float(np.sort(scores)[rank]) for rank in ranks}
        for share in (0.0, 0.1, 0.5, 0.999, 1.0):
            value = quantiles(lambda: (("a", part) for part in parts), {"a": len(scores)}, share)["a"]
            assert value == pytest.approx(float(np.quantile(scores.astype(np.float64), share)), rel=1e-12)

    def test_groups_do_not_mix(self) -> None:
        scores = {"a": np.float32([1, 2, 3]), "b": np.float32([10, 20])}
        found = order_statistics(lambda: scores.items(), {"a": [1], "b": [1]})
        assert found == {"a": {1: 2.0}, "b": {1: 20.0}}


@pytest.mark.parametrize("kind", list(WRITERS))
def test_kept_rows_are_as_they_were(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = WRITERS[kind](tmp_path, rows_of(40))
    scores = made_up(40)
    scored_folder(tmp_path / "scores", [source], scores)
    code, report = run(capsys, tmp_path / "scores", "--output", tmp_path / "out", "--min", "0.3")
    expected = [row.scores[0] >= 0.3 for row in scores]
    assert (code, report["kept"], report["rows"]) == (0, sum(expected), 40)
    assert report["rejected"] == {"cosine too low": 40 - sum(expected)}
    (kept,) = (path for path in (tmp_path / "out" / "kept").iterdir())
    before = texts_in(source)
    assert texts_in(kept) == [text for text, is_kept in zip(before, expected, strict=True) if is_kept]
    rejected = [json.loads(line) for line in next((tmp_path / "out" / "rejected").iterdir()).read_text().splitlines()]
    assert [row["id"] for row in rejected] == [row.row_id for row, k in zip(scores, expected, strict=True) if not k]
    assert all(row["reason"].startswith("cosine too low (0.") for row in rejected)
    if "parquet" in kind:
        one, other = (pyarrow.parquet.read_schema(path) for path in (source, kept))
        assert one.equals(other)
    if kind == "tar":
        files = [{m.name: tar.extractfile(m).read() for m in tar} for tar in map(tarfile.open, (source, kept))]
        assert files[1].items() <= files[0].items()


class TestCriteria:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        self.scores = made_up(300)
        source = WRITERS["jsonl"](tmp_path, rows_of(300))
        return scored_folder(tmp_path / "scores", [source], self.scores, 50)

    def kept(self, tmp_path: Path) -> set[str]:
        return {json.loads(line)["id"] for line in (tmp_path / "out" / "kept" / "rows.jsonl").read_text().splitlines()}

    def test_the_best_of_all(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run(capsys, folder, "--output", tmp_path / "out", "--top", "30%")
        best = sorted(self.scores, key=lambda row: -row.scores[0])[:90]
        assert self.kept(tmp_path) == {row.row_id for row in best}

    def test_the_best_of_each_language(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run(capsys, folder, "--output", tmp_path / "out", "--top", "30%", "--by", "language")
        expected: set[str] = set()
        for language in LANGUAGES:
            rows = sorted((row for row in self.scores if row.language == language), key=lambda row: -row.scores[0])
            expected |= {row.row_id for row in rows[: round(0.3 * len(rows))]}
        assert self.kept(tmp_path) == expected

    def test_a_number_of_rows_of_one_language_and_a_share_of_another(
        self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, report = run(capsys, folder, "--output", tmp_path / "out", "--top", "zh=10", "--top", "en=50%")
        of = {row.row_id: row.language for row in self.scores}
        english = sum(row.language == "en" for row in self.scores)
        assert Counter(of[key] for key in self.kept(tmp_path)) == {"zh": 10, "en": round(english / 2)}
        thai = sum(row.language == "th" for row in self.scores)
        assert report["rejected"]["no criterion for its language"] == thai

    @pytest.mark.parametrize("more", [[], ["--any"]])
    def test_two_judges(
        self, more: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(capsys, folder, "--output", tmp_path / "out", "--min", "0.3", "--min", "sharp:0.5", *more)
        combine = any if more else all
        assert self.kept(tmp_path) == {
            row.row_id for row in self.scores if combine((row.scores[0] >= 0.3, row.scores[1] >= np.float32(0.5)))
        }

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ([], "no rule says what to keep"),
            (["--top", "much"], "--top much: give a share or a number of rows, as 30% or 100000"),
            (["--top", "0%"], "--top 0%: give a share"),
            (["--top", "101%"], "give a share"),
            (["--top", "0.5"], "give a share"),
            (["--min", "30%"], "--min 30%: give a score, as 0.3"),
            (["--shuffled", "0.99"], "--shuffled 0.99: give a share, as 99%"),
            (["--shuffled", "99%"], "can be shuffled; score with --embeddings"),
            (["--min", "xx=0.3"], "there are no scored rows in xx; there are en, th, zh"),
            (["--min", "siglip:0.3"], "there are no scores of siglip; there are those of cosine, sharp"),
        ],
    )
    def test_a_wrong_call_is_one_line(
        self, more: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, said = run(capsys, folder, "--output", tmp_path / "out", *more)
        assert code == 2
        assert message in said["err"].splitlines()[-1]

    def test_a_language_may_be_written_with_a_judge(self) -> None:
        assert Criterion.parse("min", "zh=sharp:-0.5") == Criterion("min", -0.5, "sharp", "zh")
        with pytest.raises(UserError, match="give a score"):
            Criterion.parse("min", "zh=")


def test_rows_without_a_score_are_rejected_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = WRITERS["jsonl"](tmp_path, rows_of(20))
    scores = made_up(15)
    scores[3] = Scored("0003", (), "no such file")
    scores[4] = Scored("0004", (), "timed out", True)
    plan = scored_folder(tmp_path / "scores", [WRITERS["jsonl"](tmp_path, rows_of(15))], scores)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows_of(20)))
    stored = json.loads((plan / "_plan.json").read_text())
    stored["sources"] = {same_place(str(source)): stamp_of(str(source))}
    (plan / "_plan.json").write_text(json.dumps(stored))
    code, report = run(capsys, plan, "--output", tmp_path / "out", "--min", "-1")
    assert code == 1, "five rows are not scored yet"
    assert report["rejected"] == {"no score": 2, "not scored yet": 5}
    assert (report["kept"], report["rows"]) == (13, 20)


def test_a_source_that_has_changed_is_left_and_the_others_are_filtered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        sources.append(WRITERS["tar"](tmp_path / str(number), rows_of(10)))
    folder = scored_folder(tmp_path / "scores", sources, made_up(30))
    data = sources[1].read_bytes()
    sources[1].write_bytes(data + b"\0" * 10240)
    command = [folder, "--output", tmp_path / "out", "--min", "-1"]
    code, report = run(capsys, *command)
    assert (code, report["rows"]) == (1, 20)
    assert "has changed since it was scored" in report["unfinished"][0]["reason"]
    assert len(list((tmp_path / "out" / "kept").rglob("*.tar"))) == 2
    code, said = run(capsys, *command[:-1], "0.5")
    assert code == 2
    assert "another filter kept (filter, thresholds differ)" in said["err"]


def test_several_scores_of_a_row_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "rows.jsonl"
    row = rows_of(1)[0]
    source.write_text(json.dumps({**row, "text": ["a cat", "a dog"]}) + "\n")
    score = ["score", str(source), "--output", str(tmp_path / "scores"), "--workers", "0", "--dtype", "float32"]
    assert main(score) == 0
    capsys.readouterr()
    code, said = run(capsys, tmp_path / "scores", "--output", tmp_path / "out", "--min", "0")
    assert code == 2
    assert "several scores of a row; score with --captions best, mean or first" in said["err"]


@pytest.mark.full
def test_killed_ten_times_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources, count = [], 300
    for number in range(12):
        (tmp_path / f"{number:02d}").mkdir()
        sources.append(WRITERS["tar"](tmp_path / f"{number:02d}", rows_of(count)))
    folder = scored_folder(tmp_path / "scores", sources, made_up(12 * count), 100)
    command = ["filter", folder, "--output", tmp_path / "out", "--top", "40%", "--by", "language"]
    generator, kills = random.Random(0), 0
    while kills < (10 if FULL else 3):
        process = Command(command, tmp_path / "said")
        time.sleep(generator.uniform(0.02, 0.6))
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    code, report = run(capsys, *command[1:])
    assert (code, report["rows"]) == (0, 12 * count)
    kept = [row for path in sorted((tmp_path / "out" / "kept").rglob("*.tar")) for row in texts_in(path)]
    rejected = [line for path in (tmp_path / "out" / "rejected").rglob("*.jsonl") for line in path.open()]
    assert len(kept) == report["kept"]
    assert len(kept) + len(rejected) == 12 * count
    assert not list((tmp_path / "out" / "rejected").rglob(".*.partial"))


@pytest.mark.parametrize("by", [[], ["--by", "language"]])
def test_above_what_shuffled_pairs_get(by: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The threshold is the share of the cosines of pictures with texts that are not theirs, by numpy."""
    pictures = held_out_pictures()[:60]
    rows = [
        {
            "id": f"{number:04d}",
            "image": str(picture.path),
            "text": captions(picture.concept, picture.colour, language)[0],
            "language": language,
        }
        for number, picture in enumerate(pictures)
        for language in [("en", "zh")[number % 2]]
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    score = ["score", str(source), "--output", str(tmp_path / "scores"), "--embeddings", "--workers", "0"]
    assert main([*score, "--judge", "emoji-m18", "--dtype", "float32"]) == 0
    capsys.readouterr()
    code, report = run(capsys, tmp_path / "scores", "--output", tmp_path / "out", "--shuffled", "95%", *by)
    assert (code, report["rows"]) == (0, 60)
    scorer = AltCLIPScorer.from_pretrained("emoji-m18")
    cosines = scorer.similarity([row["text"] for row in rows], [row["image"] for row in rows]).numpy()
    texts = np.array([row["text"] for row in rows])
    languages = np.array([row["language"] for row in rows])
    shuffled = []
    for language in ("en", "zh"):
        mine = np.flatnonzero(languages == language)
        other = np.roll(mine, 1 + len(mine) // 3)
        differ = texts[mine] != texts[other]
        shuffled.append(cosines[other[differ], mine[differ]])
    limits = (
        [np.quantile(np.concatenate(shuffled), 0.95)] * 2 if not by else [np.quantile(each, 0.95) for each in shuffled]
    )
    own = cosines.diagonal()
    expected = sum(own[n] >= limits[("en", "zh").index(row["language"])] for n, row in enumerate(rows))
    assert report["kept"] == expected
    (thresholds,) = json.loads((tmp_path / "out" / "_plan.json").read_text())["thresholds"]
    assert list(thresholds.values()) == pytest.approx(limits if by else limits[:1], abs=1e-5)


class TestPage:
    """Histograms by language, and pictures at quantiles."""

    @pytest.mark.parametrize("kind", ["jsonl", *in_full("tar", "folder", "parquet of pictures")])
    def test_rows_at_quantiles_are_shown(self, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = rows_of(60)
        for row in rows:
            row["text"] = f"text <{row['id']}>"
        scores = made_up(60)
        scores[7] = Scored("0007", (), "no such file", language="en")
        folder = scored_folder(tmp_path / "scores", [WRITERS[kind](tmp_path, rows)], scores)
        code = main(["filter", str(folder), "--html", str(tmp_path / "page.html"), "--top", "50%", "--by", "language"])
        assert (code, capsys.readouterr().out) == (0, ""), "without --output nothing is filtered"
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert 'class="plot"' in page
        assert "<h1>Scores</h1>" in page
        assert "http" not in page, "it loads nothing"
        for language in LANGUAGES:
            of_language = sorted(
                (row.scores[0], number)
                for number, row in enumerate(scores[:35])  # of the first five shards
                if row.scores and row.language == language
            )
            for quantile in (0.02, 0.5, 0.98):
                value, number = of_language[round(quantile * (len(of_language) - 1))]
                assert f"cosine {value:.4f}, above {100 * quantile:g}% of the rows" in page
                assert f"text &lt;{number:04d}&gt;" in page
        assert page.count("data:image/jpeg") == 7 * len(LANGUAGES)

    def test_pictures_that_are_gone_leave_their_words(self, tmp_path: Path) -> None:
        rows = rows_of(20)
        for row in rows[:10]:
            row["image"] = "gone.png"
        folder = scored_folder(tmp_path / "scores", [WRITERS["jsonl"](tmp_path, rows)], made_up(20))
        assert main(["filter", str(folder), "--html", str(tmp_path / "page.html")]) == 0
        assert "no such file" in (tmp_path / "page.html").read_text(encoding="utf-8")

    def test_nothing_scored_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scores = [Scored(f"{number}", (), "no such file") for number in range(3)]
        folder = scored_folder(tmp_path / "scores", [WRITERS["jsonl"](tmp_path, rows_of(3))], scores)
        assert main(["filter", str(folder), "--html", str(tmp_path / "page.html")]) == 2
        assert "no row has a score" in capsys.readouterr().err
