"""Which rows belong to which shard, said beforehand, so that shards can be scored anywhere and in any order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec

from altdiffusion_clip.bulk.rows import Columns, check_source, kind_of, read_rows
from altdiffusion_clip.bulk.shards import Position


@dataclass(frozen=True)
class Span:
    """Rows of one source, that follow each other."""

    source: int
    start: int
    count: int


@dataclass(frozen=True)
class ShardPlan:
    """The rows of a shard.

    Attributes:
        number: of the shard.
        spans: where its rows are; of several sources where one ends inside the shard.
        following: where the next shard begins.
    """

    number: int
    spans: tuple[Span, ...]
    following: Position


def count_rows(source: str, columns: Columns, image_root: str = "") -> int:
    """How many rows a source has, as `read_rows` gives them; pictures are not read.

    Raises:
        UserError: the source cannot be read at all.
    """
    if kind_of(source) == ".parquet":
        # Rows are not read for their number, since they may hold the pictures.
        check_source(source, columns, image_root)
        import pyarrow.parquet

        with fsspec.open(source, "rb") as file:
            return pyarrow.parquet.ParquetFile(file).metadata.num_rows
    return sum(1 for _ in read_rows(source, columns, 0, image_root))


def plan_shards(counts: Sequence[int], shard_size: int) -> Iterator[ShardPlan]:
    """Shards of so many rows each, in order; the last may have fewer.

    Args:
        counts: rows of each source.
        shard_size: rows in a shard.

    Example:
        >>> [[(s.source, s.start, s.count) for s in shard.spans] for shard in plan_shards([3, 0, 3], 4)]
        [[(0, 0, 3), (2, 0, 1)], [(2, 1, 2)]]
    """
    number, spans, room = 0, list[Span](), shard_size
    end = Position()
    for source, count in enumerate(counts):
        start = 0
        while start < count:
            taken = min(room, count - start)
            spans.append(Span(source, start, taken))
            start, room = start + taken, room - taken
            end = Position(source, start)
            if not room:
                yield ShardPlan(number, tuple(spans), end)
                number, spans, room = number + 1, [], shard_size
    if spans:
        yield ShardPlan(number, tuple(spans), end)
