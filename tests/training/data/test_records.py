import json
from pathlib import Path

import pytest

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.data.records import LeftOut, read_records

RECORDS = [{"en": "a cat", "zh": "猫"}, {"en": 'a "dog"', "zh": "狗"}]


def write(kind: str, folder: Path) -> Path:
    path = folder / f"data.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS), encoding="utf-8")
    elif kind == "tsv":
        path.write_text("en\tzh\n" + "\n".join(f"{r['en']}\t{r['zh']}" for r in RECORDS), encoding="utf-8")
    elif kind == "csv":
        path.write_text('en,zh\na cat,猫\n"a ""dog""",狗\n', encoding="utf-8")
    elif kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(RECORDS), path)
    else:
        path = folder / "data"
        for code in ("en", "zh"):
            (folder / f"data.{code}").write_text("".join(r[code] + "\n" for r in RECORDS), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "csv", "parquet", "moses"])
def test_every_kind_gives_the_same_records(kind: str, tmp_path: Path) -> None:
    left_out = LeftOut()
    assert [record for _, record in read_records(write(kind, tmp_path), left_out)] == RECORDS
    assert len(left_out) == 0


def test_bad_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"en": "a"}\nnot json\n\n[1]\n{"en": "b"}\n')
    left_out = LeftOut()
    assert [record["en"] for _, record in read_records(path, left_out)] == ["a", "b"]
    assert left_out.as_dict() == {"no JSON": 1, "no JSON object": 1}
    assert "first: a.jsonl row 2" in str(left_out)
    table = tmp_path / "a.tsv"
    table.write_text("en\tzh\nx\ty\tz\nu\tv\nw\n")
    assert [record for _, record in read_records(table, left_out)] == [{"en": "u", "zh": "v"}, {"en": "w"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "there is no .*missing.jsonl; give a .jsonl, .tsv"),
        ("a.xlsx", b"x", "cannot read .xlsx; give .jsonl"),
        ("a.jsonl", b"\xb6\xab", "is not UTF-8 .*; name its --encoding, such as gb18030"),
        ("a.parquet", b"nothing", "a.parquet cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_records(tmp_path / name, LeftOut()))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_believed(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("en\tzh\na cat\t猫\n", encoding=encoding)
    (tmp_path / "a.jsonl").write_text('{"en": "a cat", "zh": "猫"}\n', encoding=encoding)
    for name in ("a.tsv", "a.jsonl"):
        assert [record for _, record in read_records(tmp_path / name, LeftOut())] == [{"en": "a cat", "zh": "猫"}]


def test_chinese_as_windows_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes("en\tzh\na cat\t蓝色背景\n".encode("gb18030"))
    for code, said in (("en", "a cat"), ("zh", "蓝色背景")):
        (tmp_path / f"b.{code}").write_bytes(f"{said}\n".encode("gb18030"))
    for name in ("a.tsv", "b"):
        found = read_records(tmp_path / name, LeftOut(), "gb18030")
        assert [record for _, record in found] == [{"en": "a cat", "zh": "蓝色背景"}]
        with pytest.raises(UserError, match="name its --encoding, such as gb18030"):
            list(read_records(tmp_path / name, LeftOut()))


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_page_in_a_cell_does_not_end_the_table(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.csv" if delimiter == "," else "a.tsv")
    lines = [("en", "zh"), ("a cat", "猫"), ("y" * 140_000, "狗"), ("a fox", "狐狸")]
    path.write_text("".join(delimiter.join(line) + "\n" for line in lines), encoding="utf-8")
    assert [record["zh"] for _, record in read_records(path, LeftOut())] == ["猫", "狗", "狐狸"]


def test_a_moses_corpus_of_unequal_lengths(tmp_path: Path) -> None:
    (tmp_path / "data.en").write_text("a\nb\n")
    (tmp_path / "data.zh").write_text("甲\n")
    with pytest.raises(UserError, match=r"data\.zh ends at line 1"):
        list(read_records(tmp_path / "data", LeftOut()))
