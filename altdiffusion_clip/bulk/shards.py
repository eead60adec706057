"""The folder that a scoring run writes: shards of Parquet, each whole or not there, and what they were made from."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path, write_text

PLAN = "plan.json"
UNITS = {"cosine": "[-1, 1]", "clip_score": "100 max(cosine, 0)"}


@dataclass(frozen=True)
class Scored:
    """A row's score, or what was wrong.

    Attributes:
        row_id: of the row.
        cosine: of its picture and text, in [-1, 1]; None if there is none.
        error: one line; empty if there is a score.
    """

    row_id: str
    cosine: float | None
    error: str = ""


@dataclass(frozen=True)
class Position:
    """Where the next row is: in which source, after how many of its rows."""

    source: int = 0
    row: int = 0


class ShardFolder:
    """Shards `part-000000.parquet` and on, in order.

    Args:
        folder: made if it is not there.
        plan: what decides the scores: sources, columns, the model's fingerprint, rows in a shard. A folder made from
            another plan is refused.

    Raises:
        UserError: the folder belongs to another run, or cannot be written.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        path = folder / PLAN
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                raise UserError(f"{path} is damaged; choose another --output folder") from None
            changed = sorted(key for key in {*before, *plan} if before.get(key) != plan.get(key))
            if changed:
                what = ", ".join(changed)
                raise UserError(f"{folder} holds scores of another run ({what} differ); choose another --output folder")
        else:
            if folder.is_dir() and any(folder.glob("part-*.parquet")):
                raise UserError(f"{folder} holds shards without a {PLAN}; choose another --output folder")
            try:
                write_text(path, json.dumps(plan, ensure_ascii=False, indent=1) + "\n")
            except OSError as error:
                raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error

    @classmethod
    def there(cls, folder: Path) -> Self:
        """A folder that another process has made, for its shards alone."""
        shards = cls.__new__(cls)
        shards.folder = folder
        return shards

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{number:06d}.parquet"

    def resume(self) -> tuple[int, Position]:
        """The first shard that is not there, and where its rows begin.

        Raises:
            UserError: a shard is damaged.
        """
        number = 0
        while self.path(number).is_file():
            number += 1
        if number == 0:
            return 0, Position()
        metadata = _metadata(self.path(number - 1))
        try:
            return number, Position(**json.loads(metadata[b"next"]))
        except (KeyError, ValueError, TypeError):
            raise UserError(f"{self.path(number - 1)} is no shard of ours; remove it to score it again") from None

    def write(self, number: int, rows: Sequence[Scored], following: Position) -> None:
        """Writes a shard, whole or not at all."""
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table(
            {
                "row_id": pyarrow.array([row.row_id for row in rows], pyarrow.string()),
                "cosine": pyarrow.array([row.cosine for row in rows], pyarrow.float32()),
                "clip_score": pyarrow.array(
                    [None if row.cosine is None else 100 * max(row.cosine, 0.0) for row in rows], pyarrow.float32()
                ),
                "error": pyarrow.array([row.error or None for row in rows], pyarrow.string()),
            }
        )
        metadata = {"next": json.dumps(asdict(following)), "units": json.dumps(UNITS)}
        with atomic_path(self.path(number)) as path:
            pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def read_shards(folder: Path) -> list[Scored]:
    """All rows of a finished run, in order; for tests and small runs."""
    import pyarrow.parquet

    rows = []
    for path in sorted(folder.glob("part-*.parquet")):
        for record in pyarrow.parquet.read_table(path).to_pylist():
            rows.append(Scored(record["row_id"], record["cosine"], record["error"] or ""))
    return rows


def _metadata(path: Path) -> dict[bytes, bytes]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowException):
        raise UserError(f"{path} is damaged; remove it to score it again") from None
