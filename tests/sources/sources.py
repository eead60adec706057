"""Sources of every kind, made of the same rows."""

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

Rows = list[dict[str, str]]
"""Of id, image (a path) and text."""


def as_jsonl(folder: Path, rows: Rows) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def as_csv(folder: Path, rows: Rows, delimiter: str = ",") -> Path:
    path = folder / ("rows.csv" if delimiter == "," else "rows.tsv")
    with path.open("w", encoding="utf-8", newline="") as file:
        # Texts in a TSV have quotation marks of their own.
        plain = {"quoting": csv.QUOTE_NONE, "quotechar": None} if delimiter == "\t" else {}
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, **plain)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_tsv(folder: Path, rows: Rows) -> Path:
    return as_csv(folder, rows, "\t")


def as_parquet(folder: Path, rows: Rows) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "rows.parquet", row_group_size=20)
    return folder / "rows.parquet"


def as_parquet_of_pictures(folder: Path, rows: Rows) -> Path:
    import pyarrow
    import pyarrow.parquet

    table = [{**row, "image": Path(row["image"].removeprefix("faulty://")).read_bytes()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / "inside.parquet", row_group_size=20)
    return folder / "inside.parquet"


def as_tar(folder: Path, rows: Rows, name: str = "rows.tar") -> Path:
    mode = "w:gz" if name.endswith("gz") else "w"
    with tarfile.open(folder / name, mode) as tar:  # type: ignore[call-overload]
        for row in rows:
            picture = Path(row["image"].removeprefix("faulty://"))
            for ending, data in ((picture.suffix, picture.read_bytes()), (".txt", row["text"].encode())):
                info = tarfile.TarInfo(row["id"] + ending)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder / name


def as_folder(folder: Path, rows: Rows) -> Path:
    place = folder / "rows"
    place.mkdir()
    for row in rows:
        picture = Path(row["image"].removeprefix("faulty://"))
        shutil.copy(picture, place / (row["id"] + picture.suffix))
        (place / f"{row['id']}.txt").write_text(row["text"], encoding="utf-8")
    return place


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {
    "jsonl": as_jsonl,
    "csv": as_csv,
    "tsv": as_tsv,
    "parquet": as_parquet,
    "parquet of pictures": as_parquet_of_pictures,
    "tar": as_tar,
    "folder": as_folder,
}
