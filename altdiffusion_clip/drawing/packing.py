"""Packs pictures into large files: webdataset tars, or Parquet with the pictures inside, local or at any fsspec URL."""

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altdiffusion_clip.drawing.log import Row, name_of
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.files import atomic_path
from altdiffusion_clip.sources.places import file_system_of, is_remote, under

KINDS = ("tar", "parquet")
PICTURES = 1000
"""Pictures per file."""
_PACK = re.compile(r"(?P<pack>.*pictures-(?:\d+-of-\d+-)?(?P<number>\d{6})\.(?:tar|parquet)):(?P<name>.*)", re.DOTALL)


@dataclass(frozen=True)
class Packing:
    """How and where pictures are packed.

    Attributes:
        kind: of `KINDS`.
        place: a folder or a URL.
        pictures: per file.
    """

    kind: str
    place: str
    pictures: int = PICTURES

    def name(self, number: int, shard: tuple[int, int] | None) -> str:
        """The path or URL of a file."""
        run = f"{shard[0]}-of-{shard[1]}-" if shard else ""
        return under(self.place, f"pictures-{run}{number:06d}.{self.kind}")

    def write(self, place: str, folder: Path, rows: Sequence[Row]) -> None:
        """Writes a file of pictures and their rows, completely or not at all.

        Args:
            place: of the file.
            folder: of the pictures.
            rows: of the pictures.

        Raises:
            UserError: it cannot be written.
        """
        make = _write_tar if self.kind == "tar" else _write_parquet
        try:
            if not is_remote(place):
                with atomic_path(place) as path:
                    make(path, folder, rows)
                return
            with tempfile.NamedTemporaryFile(suffix=f".{self.kind}") as file:
                make(Path(file.name), folder, rows)
                filesystem, remote = file_system_of(place)
                filesystem.makedirs(remote.rpartition("/")[0], exist_ok=True)
                filesystem.put_file(file.name, remote)
                size = filesystem.info(remote)["size"]
                if size != Path(file.name).stat().st_size:
                    raise OSError(f"{size} bytes came to be there of {Path(file.name).stat().st_size}")
        except Exception as error:  # each fsspec file system raises its own errors
            raise UserError(f"cannot write {place}: {one_line(error)}") from error


def is_packed(file: str) -> bool:
    """Whether a row's picture is in a pack.

    Example:
        >>> is_packed("pictures-000001.tar:000-seed0.png"), is_packed("000-seed0.png")
        (True, False)
    """
    return _PACK.fullmatch(file) is not None


def pack_of(file: str) -> tuple[str, int]:
    """The path or URL of the pack that a picture is in, and the pack's number."""
    found = _PACK.fullmatch(file)
    assert found is not None
    return found["pack"], int(found["number"])


def _write_tar(path: Path, folder: Path, rows: Sequence[Row]) -> None:
    """Writes each picture as `NAME.png`, its prompt as `NAME.txt`, and its row as `NAME.json`."""
    with tarfile.open(path, "w") as tar:
        for row in rows:
            name = name_of(row)
            parts = {
                "png": (folder / row["file"]).read_bytes(),
                "txt": row["prompt"].encode(),
                "json": json.dumps({**row, "file": f"{name}.png"}, ensure_ascii=False).encode(),
            }
            for ending, data in parts.items():
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, folder: Path, rows: Sequence[Row]) -> None:
    """Writes one row per picture, with the picture in the column `image` as in the `datasets` library."""
    import pyarrow
    import pyarrow.parquet

    records: list[dict[str, Any]] = [
        {
            "id": row["id"],
            "name": name_of(row),
            "language": row["language"],
            "prompt": row["prompt"],
            "text": row["prompt"],
            "seed": row["seed"],
            "rank": row["rank"],
            "score": None if row["score"] is None else json.dumps(row["score"]),
            "settings": json.dumps(row["settings"], ensure_ascii=False),
            "columns": json.dumps(row.get("columns", {}), ensure_ascii=False),
            "image": {"bytes": (folder / row["file"]).read_bytes(), "path": f"{name_of(row)}.png"},
        }
        for row in rows
    ]
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = pyarrow.Table.from_pylist(records)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": features}), path, row_group_size=100)
