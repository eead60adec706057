"""Rows of every kind of source: from any row on, and whatever people put into them."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources import places
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.retries import Retries, may_pass
from altdiffusion_clip.sources.row import Columns, Row
from altdiffusion_clip.sources.rows import Source, UnfinishedError, check_source, count_rows, read_rows
from tests.sources.faulty import Faulty, UnavailableError
from tests.sources.sources import WRITERS, Rows, as_csv, as_jsonl, as_tar

NO_WAIT = Retries(first_wait=0)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    said = ["a cat", "蓝色背景上的猫", 'a "dog"', "un gato, azul", "القط\u064f"]
    return [{"id": f"{n:03d}", "image": str(tmp_path / "a.png"), "text": said[n % 5]} for n in range(53)]


@pytest.fixture(autouse=True)
def without_faults() -> None:
    Faulty.reset()


@pytest.fixture
def small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few rows take many."""
    monkeypatch.setattr(places, "BUFFER", 512)


def read(path: Path | str, **options: object) -> list[Row]:
    return [row for row, _ in read_rows(Source(str(path), **options), retries=NO_WAIT)]  # type: ignore[arg-type]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_source_is_read_from_any_row_on(kind: str, tmp_path: Path, rows: Rows) -> None:
    source = Source(str(WRITERS[kind](tmp_path, rows)))
    everything = list(read_rows(source))
    assert [row.text for row, _ in everything] == [row["text"] for row in rows]
    assert [cursor.row for _, cursor in everything] == list(range(1, 54))
    assert count_rows(source) == 53
    for place in (0, 4, 19, 20, 50, 52):
        cursor = everything[place][1]
        assert list(read_rows(source, cursor)) == everything[place + 1 :]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "tar"])
def test_reading_on_does_not_read_what_was_read(kind: str, tmp_path: Path, rows: Rows, small_requests: None) -> None:
    path = WRITERS[kind](tmp_path, rows * 20)
    source = Source(f"faulty://{path}")
    *_, (_, near_the_end) = (found for found, _ in zip(read_rows(source), range(1000), strict=False))
    Faulty.reset()
    assert len(list(read_rows(source, near_the_end))) == 60
    assert Faulty.bytes < path.stat().st_size / 5


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "tar"])
def test_packed_sources_read_as_others(kind: str, tmp_path: Path, rows: Rows) -> None:
    path = WRITERS[kind](tmp_path, rows)
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    unpacked = list(read_rows(Source(str(path))))
    again = list(read_rows(Source(str(packed), label=path.name)))
    assert again == unpacked
    assert list(read_rows(Source(str(packed), label=path.name), again[30][1])) == unpacked[31:]


class TestFaults:
    @pytest.mark.parametrize("kind", list(WRITERS))
    @pytest.mark.parametrize("fault", ["reset", "time-out", "503", "short read"])
    def test_what_passes_is_not_seen(
        self, kind: str, fault: str, tmp_path: Path, rows: Rows, small_requests: None
    ) -> None:
        path = WRITERS[kind](tmp_path, rows)
        expected = [row.text for row in read(path)]
        raised = {
            "reset": ConnectionResetError("reset"),
            "time-out": TimeoutError("timed out"),
            "503": UnavailableError(),
            "short read": "short",
        }[fault]
        Faulty.reset(lambda number, _: raised if number % 3 == 1 else None, block_size=700)
        found = read(f"faulty://{path}")
        assert Faulty.requests > 1
        assert [row.text for row in found if not row.error] == expected

    @pytest.mark.parametrize("kind", list(WRITERS))
    def test_a_source_that_stays_away_is_unfinished(
        self, kind: str, tmp_path: Path, rows: Rows, small_requests: None
    ) -> None:
        path = WRITERS[kind](tmp_path, rows * 10)
        Faulty.reset(lambda number, _: ConnectionResetError("reset") if number >= 3 else None, block_size=700)
        seen = []
        with pytest.raises(UnfinishedError, match=r"breaks off \(reset\)"):
            for row, _ in read_rows(Source(f"faulty://{path}"), retries=Retries(3, first_wait=0)):
                seen.append(row)
        assert len(seen) < 530
        assert not [row for row in seen if row.error], "no row is made up"

    def test_each_row_is_tried_so_often(self, tmp_path: Path, rows: Rows, small_requests: None) -> None:
        path = as_jsonl(tmp_path, rows * 10)
        # Four of five requests fail, all along: no row needs more than five.
        Faulty.reset(lambda number, _: TimeoutError() if number % 5 else None, block_size=500)
        assert len(read(f"faulty://{path}")) == 530

    @pytest.mark.parametrize(
        ("error", "passes"),
        [
            (ConnectionResetError(), True),
            (TimeoutError(), True),
            (UnavailableError(), True),
            (OSError(5, "Input/output error"), True),
            (FileNotFoundError(), False),
            (PermissionError(), False),
            (ValueError(), False),
            (type("ClientError", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 429}}})(), True),
            (type("ClientError", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 403}}})(), False),
            (type("ClientPayloadError", (Exception,), {})(), True),
        ],
        ids=str,
    )
    def test_which_pass(self, error: Exception, passes: bool) -> None:
        assert may_pass(error) == passes


class TestTexts:
    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
    @pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
    def test_a_byte_order_mark_is_believed(self, ending: str, encoding: str, tmp_path: Path, rows: Rows) -> None:
        path = WRITERS[ending](tmp_path, rows)
        mark = "\ufeff" if encoding == "utf-16-le" else ""
        path.write_bytes((mark + path.read_text(encoding="utf-8")).encode(encoding))
        assert [row.text for row in read(path)] == [row["text"] for row in rows]

    @pytest.mark.parametrize("encoding", ["gb18030", "big5", "shift_jis"])
    def test_another_encoding_is_refused_unless_it_is_named(self, encoding: str, tmp_path: Path, rows: Rows) -> None:
        text = {"gb18030": "蓝色背景上的猫", "big5": "藍色背景上的貓", "shift_jis": "青い背景の猫"}[encoding]
        rows = [{**row, "text": text} for row in rows]
        path = as_csv(tmp_path, rows)
        path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
        with pytest.raises(UserError, match=r"is not UTF-8 \(byte 0x.*name its --encoding"):
            check_source(Source(str(path)))
        assert {row.text for row in read(path, encoding=encoding)} == {text}
        lines = as_jsonl(tmp_path, rows)
        lines.write_bytes(lines.read_text(encoding="utf-8").encode(encoding))
        assert all("not UTF-8" in row.error for row in read(lines))
        assert {row.text for row in read(lines, encoding=encoding)} == {text}

    def test_texts_beside_pictures_likewise(self, tmp_path: Path, rows: Rows) -> None:
        picture = Path(rows[0]["image"]).read_bytes()
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "a.png").write_bytes(picture)
        (tmp_path / "f" / "a.txt").write_bytes("蓝猫".encode("gb18030"))
        tar = write_tar(tmp_path / "a.tar", {"a.png": picture, "a.txt": "蓝猫".encode("gb18030")})
        for place in (tmp_path / "f", tar):
            assert read(place)[0].error == "its text is not UTF-8; name its --encoding, such as gb18030 or utf-16"
            assert read(place, encoding="gb18030")[0].text == "蓝猫"

    def test_a_page_in_a_cell_does_not_end_the_table(self, tmp_path: Path, rows: Rows) -> None:
        rows = [{**row, "html": "x" * (200_000 if number == 1 else 1)} for number, row in enumerate(rows)]
        for write in (WRITERS["csv"], WRITERS["tsv"]):
            assert len(read(write(tmp_path, rows))) == 53


class TestTars:
    def test_what_macos_adds_is_passed_over(self, tmp_path: Path, rows: Rows) -> None:
        picture = Path(rows[0]["image"]).read_bytes()
        members = {"._a.png": b"\0\5", "a.png": picture, "._a.txt": b"\0\5", "a.txt": b"a cat"}
        assert read(write_tar(tmp_path / "a.tar", members)) == [Row("a.tar:a", picture, "a cat")]

    @pytest.mark.parametrize(
        ("beside", "text"),
        [
            ({"a.json": b'{"text": null, "caption": "a cat"}'}, "a cat"),
            ({"a.json": b'{"text": "a cat"}', "a.txt": b""}, "a cat"),
            ({"a.json": b'{"text": "a dog"}', "a.txt": b"a cat\n"}, "a cat"),
            ({"a.caption": b"a cat"}, "a cat"),
            ({"a.text": b"a cat"}, "a cat"),
            ({"a.json": b'{"caption": {"en": "a cat"}}'}, ""),
        ],
    )
    def test_where_the_text_is(self, beside: dict[str, bytes], text: str, tmp_path: Path, rows: Rows) -> None:
        picture = Path(rows[0]["image"]).read_bytes()
        (row,) = read(write_tar(tmp_path / "a.tar", {"a.jpg": picture, **beside}))
        assert (row.text, row.error) == (text, "" if text else "no text")
        (row,) = read(write_tar(tmp_path / "b.tar", {**beside, "a.jpg": picture}))
        assert row.text == text, "pictures may come after texts"

    @pytest.mark.parametrize("damage", ["cut in a picture", "cut in a header", "rubbish in the middle"])
    def test_damage_is_a_row_and_not_the_end(self, damage: str, tmp_path: Path, rows: Rows) -> None:
        path = as_tar(tmp_path, rows)
        data = path.read_bytes()
        one = len(data) // 53 // 512 * 512
        if damage == "cut in a picture":
            path.write_bytes(data[: 20 * one + 700])
        elif damage == "cut in a header":
            path.write_bytes(data[: 20 * one + 100])
        else:
            path.write_bytes(data[: 20 * one] + b"x" * 4096 + data[20 * one + 4096 :])
        found = read(path)
        assert 10 < len(found) < 53
        assert found[-1].error.startswith("the tar file ends here, damaged")
        assert not any(row.error for row in found[:-1])
        assert count_rows(Source(str(path))) == len(found)


def test_names_of_columns_may_be_paths_or_have_dots(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"image": "a.png", "meta": {"caption": "a cat"}}, {"image": "a.png", "meta.caption": "a dog"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row.text for row in read(path, columns=Columns(text="meta.caption"))] == ["a cat", "a dog"]


def test_folders_find_pictures_of_every_ending(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    picture = Image.new("RGB", (8, 8))
    for name, kind in (("a.jfif", "JPEG"), ("b.avif", "AVIF"), ("c.JPE", "JPEG"), (".d.png", "PNG")):
        picture.save(folder / name, kind)
        (folder / f"{name.rpartition('.')[0]}.txt").write_text("a cat")
    assert [row.row_id for row in read(folder)] == ["a.jfif", "b.avif", "c.JPE"]


def test_a_local_name_may_have_two_colons(tmp_path: Path, rows: Rows) -> None:
    folder = tmp_path / "a::b"
    folder.mkdir()
    assert len(read(as_jsonl(folder, rows))) == 53
    data = Path(rows[0]["image"]).read_bytes()
    (folder / "c::d.png").write_bytes(data)
    assert Located(str(folder / "c::d.png")).read() == data
