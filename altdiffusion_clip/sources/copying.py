"""Copies some rows of a source unchanged into a file of the same kind."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from altdiffusion_clip.files import atomic_path
from altdiffusion_clip.sources import parquet, tables, tars
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import FIRST
from altdiffusion_clip.sources.rows import Source, kind_of, read_rows, told

Keep = Callable[[], bool]
"""Says whether to keep the next row. Called once per row, in order."""


def copy_rows(source: Source, keep: Keep, folder: Path, retries: Retries) -> Path:
    """Copies the rows to keep into a file, completely or not at all.

    Lines, cells and tar members are copied unchanged, but the file is not compressed, and text becomes UTF-8. For a
    folder of pictures, paths and texts are written as JSON lines.

    Args:
        source: to read.
        keep: says which rows to keep.
        folder: for the file.
        retries: of each request.

    Returns:
        The file.

    Raises:
        UserError: the source cannot be read at all.
        UnfinishedError: it cannot be read to the end.
    """
    kind = kind_of(source.place, retries)
    name = PurePosixPath(source.name.strip("/"))
    stem = name.name.removesuffix(".gz").removesuffix(".tgz")
    base = stem.removesuffix(PurePosixPath(stem).suffix) if kind != "folder" else stem
    destination = folder / name.parent / f"{base}{'.jsonl' if kind == 'folder' else kind}"
    with told(source, "cannot be copied"), atomic_path(destination) as path:
        _COPIERS[kind](source, keep, path, retries)
    return destination


def _copy_lines(source: Source, keep: Keep, path: Path, retries: Retries) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for line in tables.lines_of(source, retries):
            if keep():
                file.write(line.strip("\r\n") + "\n")


def _copy_table(source: Source, keep: Keep, path: Path, retries: Retries) -> None:
    is_tsv = tables.is_tsv(source.place)
    rows = tables.table_of(source, retries)
    with path.open("w", encoding="utf-8", newline="") as file:
        if is_tsv:
            file.write("\t".join(next(rows)) + "\n")
            file.writelines("\t".join(cells) + "\n" for cells in rows if keep())
        else:
            writer = csv.writer(file)
            writer.writerow(next(rows))
            writer.writerows(cells for cells in rows if keep())


def _copy_parquet(source: Source, keep: Keep, path: Path, retries: Retries) -> None:
    import pyarrow
    import pyarrow.parquet

    with (
        parquet.opened(source.place, retries) as file,
        pyarrow.parquet.ParquetWriter(path, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches(parquet.ROWS_AT_ONCE):
            mask = pyarrow.array([keep() for _ in range(len(batch))])
            kept = pyarrow.Table.from_batches([batch]).filter(mask)
            if len(kept):
                writer.write_table(kept)


def _copy_tar(source: Source, keep: Keep, path: Path, retries: Retries) -> None:
    def whole(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[tarfile.TarInfo, bytes]:
        return member, tars.content_of(tar, member)

    with tarfile.open(path, "w") as copy:
        for _, members, _ in tars.samples_from(source, FIRST, retries, whole):
            # A damaged end of a tar is a row without a score.
            if keep() and not isinstance(members, str):
                for member, data in members.values():
                    copy.addfile(member, io.BytesIO(data))
                    copy.members.clear()  # type: ignore[attr-defined]


def _copy_folder(source: Source, keep: Keep, path: Path, retries: Retries) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row, _ in read_rows(source, FIRST, retries):
            if keep():
                image = row.image.url if isinstance(row.image, Located) else None
                file.write(json.dumps({"id": row.row_id, "image": image, "text": row.text}, ensure_ascii=False) + "\n")


_COPIERS: dict[str, Callable[[Source, Keep, Path, Retries], None]] = {
    ".jsonl": _copy_lines,
    ".ndjson": _copy_lines,
    ".csv": _copy_table,
    ".tsv": _copy_table,
    ".parquet": _copy_parquet,
    ".tar": _copy_tar,
    "folder": _copy_folder,
}
