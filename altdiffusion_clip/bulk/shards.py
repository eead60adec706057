"""The folder of a scoring run: Parquet shards, each complete or absent, and the plan they were made from."""

import itertools
import json
import logging
from bisect import bisect, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path, lock_of, remove_leftovers, write_text
from altdiffusion_clip.judges.embedding_files import Embeddings, write_embeddings
from altdiffusion_clip.scores import COSINE, clip_score_of
from altdiffusion_clip.sources.row import FIRST, Cursor

logger = logging.getLogger(__name__)
PLAN, LOCK = "_plan.json", "_lock"
"""It starts with an underscore, so that the folder can be opened as one Parquet data set."""

UNITS = {"cosine": "[-1, 1]", "clip_score": "100 max(cosine, 0)", "score": "none"}


@dataclass(frozen=True)
class Scored:
    """A row's scores, or its error.

    Attributes:
        row_id: of the row.
        scores: of its picture and text, one per judge; empty if it failed.
        error: one line; empty if it has scores.
        may_pass: the error may be temporary, so the row will be scored again.
        language: of its text, if the row has one.
    """

    row_id: str
    scores: tuple[float, ...] = ()
    error: str = ""
    may_pass: bool = False
    language: str = ""


@dataclass(frozen=True)
class Span:
    """Consecutive rows of one source.

    Attributes:
        source: its place.
        start: index of the first row.
        count: number of rows.
        offset: byte offset of the first row, if the source can be read from there.
        end: byte offset after the last row, likewise.
    """

    source: str
    start: int
    count: int
    offset: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Shard:
    """An existing shard.

    Attributes:
        number: in its name.
        spans: the rows in it.
        scored: rows with a score.
        failed: rows without one, for good.
        to_do: rows that failed temporarily.
        kept: rows at `min_cosine` or above.
    """

    number: int
    spans: tuple[Span, ...]
    scored: int
    failed: int
    to_do: int
    kept: int


class ShardFolder:
    """Shards `part-000000.parquet`, `part-000001.parquet` and so on.

    Args:
        folder: created if it does not exist.
        plan: what decides the scores: columns, the judges' fingerprints and so on. A folder with another plan is
            rejected.
        sources: the stamp of each source by its place. Sources may be added, but scored ones must not change.

    Raises:
        UserError: the folder belongs to another run, a source has changed, or the folder cannot be written.
    """

    def __init__(self, folder: Path, plan: dict[str, Any], sources: dict[str, str]) -> None:
        self.folder = folder
        self.columns = columns_of(plan)
        before = planned(folder)
        if before is None:
            if folder.is_dir() and any(folder.glob("part-*.parquet")):
                raise UserError(f"{folder} holds shards without a {PLAN}; choose another --output folder")
        else:
            was = before.pop("sources", {})
            changed = sorted(key for key in {*before, *plan} if before.get(key) != plan.get(key))
            if changed:
                what = ", ".join(changed)
                raise UserError(f"{folder} holds scores of another run ({what} differ); choose another --output folder")
            self._check_sources(was, sources)
            if was == sources:
                return
        try:
            write_text(folder / PLAN, json.dumps({**plan, "sources": sources}, ensure_ascii=False, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error

    def _check_sources(self, was: dict[str, str], sources: dict[str, str]) -> None:
        scored = {span.source for shard in self.shards() for span in shard.spans}
        for place, stamp in was.items():
            if place not in scored or sources.get(place) == stamp:
                continue
            if place not in sources:
                raise UserError(f"{self.folder} has scores of {place} too; name it again, or choose another --output")
            raise UserError(
                f"{place} has changed since it was scored ({stamp}; now {sources[place]}); choose another --output"
            )

    @classmethod
    def there(cls, folder: Path) -> Self:
        """Opens a folder that another process created, only for its shards."""
        shards = cls.__new__(cls)
        shards.folder, shards.columns = folder, columns_of(planned(folder) or {})
        return shards

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this run.

        Raises:
            UserError: another run is using it.
        """
        taken = f"another run is writing to {self.folder}; wait for its end, or stop it"
        lock = lock_of(self.folder / LOCK, taken)
        remove_leftovers(self.folder)
        try:
            yield
        finally:
            lock.release()

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"part-{number:06d}.parquet"

    def shards(self) -> list[Shard]:
        """The existing shards, in order. Damaged ones, and ones with rows of another shard, are left out."""
        found: list[Shard] = []
        rows: dict[str, list[tuple[int, int]]] = {}  # sorted and disjoint
        for path in sorted(self.folder.glob("part-*.parquet")):
            shard = _shard_of(path)
            if shard is None:
                logger.warning("%s is damaged; its rows are scored again", path)
                continue
            if any(_overlaps(rows.get(span.source, ()), span) for span in shard.spans):
                logger.warning("%s has rows of another shard; it is left out", path)
                continue
            for span in shard.spans:
                insort(rows.setdefault(span.source, []), (span.start, span.start + span.count))
            found.append(shard)
        return found

    def remove_damaged(self) -> list[Shard]:
        """Removes what `shards` leaves out, and returns the others."""
        shards = self.shards()
        good = {self.path(shard.number) for shard in shards}
        for path in self.folder.glob("part-*.parquet"):
            if path not in good:
                path.unlink()
                path.with_suffix(".jsonl").unlink(missing_ok=True)
                path.with_suffix(".safetensors").unlink(missing_ok=True)
        return shards

    def free_numbers(self) -> Iterator[int]:
        """The numbers that no shard has, the smallest first."""
        taken = {_number_of(path) for path in self.folder.glob("part-*.parquet")}
        return (number for number in itertools.count() if number not in taken)

    def vectors_path(self, number: int) -> Path:
        """The file of a shard's vectors."""
        return self.path(number).with_suffix(".safetensors")

    def write(
        self,
        number: int,
        rows: Sequence[Scored],
        spans: Sequence[Span],
        kept: int = 0,
        vectors: Embeddings | None = None,
    ) -> None:
        """Writes a shard completely or not at all, after the files that belong to it."""
        import pyarrow
        import pyarrow.parquet

        if vectors is not None:
            write_embeddings(self.vectors_path(number), vectors)

        values = {
            name: pyarrow.array([row.scores[place] if row.scores else None for row in rows], pyarrow.float32())
            for place, name in enumerate(self.columns)
        }
        if self.columns[0] == COSINE:
            clip_scores = [clip_score_of(row.scores[0]) if row.scores else None for row in rows]
            values["clip_score"] = pyarrow.array(clip_scores, pyarrow.float32())
        table = pyarrow.table(
            {
                "row_id": pyarrow.array([row.row_id for row in rows], pyarrow.string()),
                **values,
                "error": pyarrow.array([row.error or None for row in rows], pyarrow.string()),
                "may_pass": pyarrow.array([row.may_pass if row.error else None for row in rows], pyarrow.bool_()),
                "language": pyarrow.array([row.language or None for row in rows], pyarrow.string()),
            }
        )
        to_do = sum(row.may_pass for row in rows)
        scored = sum(bool(row.scores) for row in rows)
        counts = {"scored": scored, "failed": len(rows) - scored - to_do, "to_do": to_do, "kept": kept}
        metadata = {
            "spans": json.dumps([asdict(span) for span in spans]),
            "counts": json.dumps(counts),
            "units": json.dumps(UNITS),
        }
        with atomic_path(self.path(number)) as path:
            pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")

    def rows(self, number: int) -> list[Scored]:
        """The rows of a shard."""
        import pyarrow.parquet

        columns = ["row_id", *self.columns, "error", "may_pass", "language"]
        return [
            Scored(
                record["row_id"],
                () if record["error"] else tuple(record[name] for name in self.columns),
                record["error"] or "",
                bool(record["may_pass"]),
                record["language"] or "",
            )
            for record in pyarrow.parquet.read_table(self.path(number), columns=columns).to_pylist()
        ]


def columns_of(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the score columns of a plan: the first judge's measure, and the other judges' names.

    Example:
        >>> columns_of({"judges": [{"name": "emoji-m18", "measure": "cosine"}, {"name": "sharp", "measure": "score"}]})
        ('cosine', 'score:sharp')
    """
    first, *others = plan.get("judges") or [{"measure": COSINE}]
    return first["measure"], *(f"{each['measure']}:{each['name']}" for each in others)


def planned(folder: Path) -> dict[str, Any] | None:
    """The plan of the run in a folder, or None if there is none.

    Raises:
        UserError: the plan cannot be read.
    """
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged; choose another --output folder") from None
    return plan


def spans_by_source(shards: Sequence[Shard]) -> dict[str, list[Span]]:
    """The spans of shards by source. A source without any has an empty list."""
    found: defaultdict[str, list[Span]] = defaultdict(list)
    for shard in shards:
        for span in shard.spans:
            found[span.source].append(span)
    return found


def gaps(spans: Sequence[Span]) -> list[tuple[Cursor, int | None]]:
    """The gaps in a source: first row and number of rows; None for all that follow.

    Args:
        spans: of the source that exist.

    Example:
        >>> [(cursor.row, count) for cursor, count in gaps([Span("a", 2, 3, end=70)])]
        [(0, 2), (5, None)]
    """
    missing: list[tuple[Cursor, int | None]] = []
    cursor = FIRST
    for span in sorted(spans, key=lambda span: span.start):
        if span.start > cursor.row:
            missing.append((cursor, span.start - cursor.row))
        cursor = Cursor(span.start + span.count, span.end)
    return [*missing, (cursor, None)]


def read_shards(folder: Path) -> list[Scored]:
    """All rows of a run, in order. For tests and small runs."""
    shards = ShardFolder.there(folder)
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in shards.rows(_number_of(path))]


def _number_of(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


def _overlaps(rows: Sequence[tuple[int, int]], span: Span) -> bool:
    place = bisect(rows, (span.start,))
    beside = rows[max(0, place - 1) : place + 1]  # no earlier span can overlap
    return any(start < span.start + span.count and span.start < stop for start, stop in beside)


def _shard_of(path: Path) -> Shard | None:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        spans = tuple(Span(**span) for span in json.loads(metadata[b"spans"]))
        return Shard(_number_of(path), spans, **json.loads(metadata[b"counts"]))
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError):
        return None
