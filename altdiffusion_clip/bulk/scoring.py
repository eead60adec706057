"""Scores rows, one shard at a time. Each distinct text and picture of a shard is encoded once."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from altdiffusion_clip.bulk.captions import captions_of, together
from altdiffusion_clip.bulk.shards import Scored, Shard, ShardFolder, Span, gaps, spans_by_source
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import write_text
from altdiffusion_clip.judges.embedding_files import Embeddings, read_embeddings
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import judge_rows, without_bytes
from altdiffusion_clip.judges.pictures import Workers
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import same_place
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import Cursor, Row
from altdiffusion_clip.sources.rows import Source, UnfinishedError, count_rows, read_rows

BATCHES_AHEAD = 2
"""Batches queued for each device, so that it never waits for the next one."""


@dataclass(frozen=True)
class Job:
    """What to score.

    Attributes:
        sources: of the rows.
        shard_size: rows in a shard.
        min_cosine: rows that reach it are also written as JSON lines beside each shard.
        retries: of temporary errors.
        retry_errors: also score rows again that failed permanently.
        captions: how several captions of a row are scored, one of `CAPTIONS`.
        with_vectors: write the first judge's vectors of pictures and texts beside each shard.
    """

    sources: tuple[Source, ...]
    shard_size: int = 10_000
    min_cosine: float | None = None
    retries: Retries = field(default_factory=Retries)
    retry_errors: bool = False
    captions: str = "each"
    with_vectors: bool = False

    def source_at(self, place: str) -> Source:
        """The source at a place that a span names."""
        return next(source for source in self.sources if same_place(source.place) == place)


@dataclass(frozen=True)
class Report:
    """Counts of all rows of the sources, over the whole folder.

    Attributes:
        scored: rows with a score.
        failed: rows that failed permanently.
        to_do: rows that failed temporarily; the same command scores them.
        kept: rows that reach `min_cosine`.
        unfinished: sources that could not be read to the end, and why.
        uncounted: those of them whose rows could not be counted either, so they are not in `to_do`.
    """

    scored: int = 0
    failed: int = 0
    to_do: int = 0
    kept: int = 0
    unfinished: tuple[tuple[str, str], ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """All rows that are known."""
        return self.scored + self.failed + self.to_do

    @property
    def is_complete(self) -> bool:
        """Whether every row has a score."""
        return not (self.failed or self.to_do or self.unfinished)


Placed = tuple[Row, str, Cursor, Cursor]
"""A row, the place of its source, and the cursors before and after the row."""


def score_sources(
    job: Job,
    folder: ShardFolder,
    benches: Sequence[Bench],
    workers: Workers,
    progress: Callable[[int], object] = lambda rows: None,
) -> Report:
    """Scores all rows that have no score yet.

    If a source cannot be read further, the others are still scored. The same call again continues with it.

    Args:
        job: sources and how to read them.
        folder: for the shards.
        benches: the judges, on each device.
        workers: to prepare pictures.
        progress: called with the number of rows of each finished shard.
    """
    shards = folder.remove_damaged()
    unfinished: dict[str, str] = {}
    for shard in to_score_again(job, shards):
        progress(score_again(job, folder, shard, benches, workers, unfinished))
    stream, numbers = missing(job, job.sources, shards, unfinished), folder.free_numbers()
    for count in score_stream(job, folder, stream, lambda: next(numbers), benches, workers):
        progress(count)
    return report_of(job, folder, unfinished)


def score_stream(
    job: Job,
    folder: ShardFolder,
    stream: Iterator[Placed],
    next_number: Callable[[], int],
    benches: Sequence[Bench],
    workers: Workers,
) -> Iterator[int]:
    """Scores rows as they come, shard after shard, and yields the number of rows of each.

    Args:
        job: of the run.
        folder: for the shards.
        stream: the rows.
        next_number: returns the number of the next shard.
        benches: the judges, on each device.
        workers: to prepare pictures.
    """
    while (first := next(stream, None)) is not None:
        part = itertools.chain([first], itertools.islice(stream, job.shard_size - 1))
        yield score_shard(folder, next_number(), part, benches, workers, job)


def report_of(job: Job, folder: ShardFolder, unfinished: dict[str, str]) -> Report:
    """Adds up all shards of a folder, and what is missing of sources that could not be read to the end.

    Args:
        job: of the run.
        folder: of the shards.
        unfinished: why each such source was left, by its place.
    """
    shards = folder.shards()
    to_do, uncounted = sum(shard.to_do for shard in shards), []
    spans = spans_by_source(shards)
    for place in unfinished:
        done = sum(span.count for span in spans[place])
        try:
            to_do += count_rows(job.source_at(place)) - done
        except (UserError, UnfinishedError):
            uncounted.append(place)
    return Report(
        sum(shard.scored for shard in shards),
        sum(shard.failed for shard in shards),
        to_do,
        sum(shard.kept for shard in shards),
        tuple(unfinished.items()),
        tuple(uncounted),
    )


def missing(
    job: Job, sources: Sequence[Source], shards: Sequence[Shard], unfinished: dict[str, str]
) -> Iterator[Placed]:
    """The rows of some sources that are in no shard.

    Args:
        job: of the run.
        sources: of the rows.
        shards: that exist.
        unfinished: gets the reason for each source that cannot be read further.
    """
    spans = spans_by_source(shards)
    for source in sources:
        place = same_place(source.place)
        for cursor, count in gaps(spans[place]):
            try:
                yield from placed(source, cursor, count, job.retries)
            except (UserError, UnfinishedError) as error:
                unfinished[place] = str(error)
                break


def placed(source: Source, cursor: Cursor, count: int | None, retries: Retries) -> Iterator[Placed]:
    """Some rows of a source with their positions.

    Raises:
        UserError: as `read_rows`.
        UnfinishedError: likewise.
    """
    place = same_place(source.place)
    for row, after in itertools.islice(read_rows(source, cursor, retries), count):
        yield row, place, cursor, after
        cursor = after


def to_score_again(job: Job, shards: Sequence[Shard]) -> list[Shard]:
    """Shards with rows that failed temporarily, or with any error if that is asked for."""
    return [shard for shard in shards if shard.to_do or (job.retry_errors and shard.failed)]


def score_again(
    job: Job,
    folder: ShardFolder,
    shard: Shard,
    benches: Sequence[Bench],
    workers: Workers,
    unfinished: dict[str, str],
) -> int:
    """Scores the rows of a shard again that have no score but may get one. Returns how many.

    Args:
        job: of the run.
        folder: of the shard.
        shard: the existing shard.
        benches: the judges, on each device.
        workers: to prepare pictures.
        unfinished: gets the reason if a source cannot be read; the shard is then left alone.
    """
    before = folder.rows(shard.number)
    again = [row.may_pass or (job.retry_errors and bool(row.error)) for row in before]
    rows: list[Row] = []
    for span in shard.spans:
        try:
            for row, *_ in placed(job.source_at(span.source), Cursor(span.start, span.offset), span.count, job.retries):
                for each in captions_of(row, job.captions) if job.captions == "each" else (row,):
                    # Rows with a score no longer need their picture, which may be in memory.
                    rows.append(each if again[len(rows)] else without_bytes(each))
        except (UserError, UnfinishedError) as error:
            unfinished[span.source] = str(error)
            return 0
    due = [row for row, is_due in zip(rows, again, strict=True) if is_due]
    _, scored, vectors = _score(due, benches, workers, job)
    new = iter(scored)
    after = [next(new) if is_due else row for row, is_due in zip(before, again, strict=True)]
    kept = _write_kept(folder, shard.number, rows, after, job.min_cosine)
    if vectors is not None and (path := folder.vectors_path(shard.number)).is_file():
        vectors = read_embeddings(path).joined(vectors)
    folder.write(shard.number, after, shard.spans, kept, vectors)
    return len(scored)


def score_shard(
    folder: ShardFolder,
    number: int,
    rows: Iterable[Placed],
    benches: Sequence[Bench],
    workers: Workers,
    job: Job,
) -> int:
    """Scores the rows of a shard as they come, and writes it completely or not at all. Returns how many rows it has.

    Args:
        folder: for the shard.
        number: of the shard.
        rows: of the shard, in order; if there are none, nothing is written.
        benches: the judges, on each device.
        workers: to prepare pictures.
        job: of the run.
    """
    spans: list[Span] = []

    def noted() -> Iterator[Row]:
        for row, place, before, after in rows:
            last = spans[-1] if spans else None
            if last is not None and last.source == place and last.start + last.count == before.row:
                spans[-1] = replace(last, count=last.count + 1, end=after.offset)
            else:
                spans.append(Span(place, before.row, 1, before.offset, after.offset))
            yield row

    read, scored, vectors = _score(noted(), benches, workers, job)
    if scored:
        kept = _write_kept(folder, number, read, scored, job.min_cosine)
        folder.write(number, scored, spans, kept, vectors)
    return len(scored)


def _score(
    rows: Iterable[Row], benches: Sequence[Bench], workers: Workers, job: Job
) -> tuple[list[Row], list[Scored], Embeddings | None]:
    """The rows with their scores, and the vectors if wanted."""
    captions: list[int] = []

    def parted() -> Iterator[Row]:
        for row in rows:
            parts = captions_of(row, job.captions)
            captions.append(len(parts))
            yield from parts

    vectors: list[Embeddings] = []
    read, judged = judge_rows(parted(), benches, workers, vectors.append if job.with_vectors else None)
    if job.captions in ("best", "mean"):
        starts = list(itertools.accumulate(captions, initial=0))
        judged = [together(judged[a:b], job.captions) for a, b in itertools.pairwise(starts)]
        read = [read[start] for start in starts[:-1]]
    scored = [
        Scored(row.row_id, each.scores, each.error, each.may_pass, row.language)
        for row, each in zip(read, judged, strict=True)
    ]
    return read, scored, vectors[0] if vectors else None


def _write_kept(
    folder: ShardFolder, number: int, rows: Sequence[Row], scored: Sequence[Scored], least: float | None
) -> int:
    if least is None:
        return 0
    kept = []
    for row, score in zip(rows, scored, strict=True):
        if score.scores and score.scores[0] >= least:
            image = {"image": row.image.url} if isinstance(row.image, Located) else {}
            language = {"language": row.language} if row.language else {}
            values = dict(zip(folder.columns, (round(value, 6) for value in score.scores), strict=True))
            kept.append({"id": row.row_id, **image, "text": row.text, **language, **values})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    write_text(folder.path(number).with_suffix(".jsonl"), lines)
    return len(kept)
