"""Scores of rows, a shard at a time: every distinct text and picture is encoded once in each."""

import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from altdiffusion_clip.bulk.encoding import Encoder
from altdiffusion_clip.bulk.pictures import Prepared, Workers
from altdiffusion_clip.bulk.shards import Scored, Shard, ShardFolder, Span, gaps, spans_by_source
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import write_text
from altdiffusion_clip.scores import NOT_A_NUMBER
from altdiffusion_clip.sources.places import Located, same_place
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import Cursor, Row
from altdiffusion_clip.sources.rows import Source, UnfinishedError, count_rows, read_rows

BATCHES_AHEAD = 2
"""On each device, so that it does not wait while the next batch is gathered."""


@dataclass(frozen=True)
class Job:
    """What is to be scored.

    Attributes:
        sources: of the rows.
        shard_size: rows in a shard.
        min_cosine: rows that reach it are also written, as JSON lines beside each shard.
        retries: of faults that may pass.
        retry_errors: rows that failed for good are scored again too.
    """

    sources: tuple[Source, ...]
    shard_size: int = 10_000
    min_cosine: float | None = None
    retries: Retries = field(default_factory=Retries)
    retry_errors: bool = False

    def source_at(self, place: str) -> Source:
        """The source of a place, as spans name it."""
        return next(source for source in self.sources if same_place(source.place) == place)


@dataclass(frozen=True)
class Report:
    """Every row of the sources, over the whole folder.

    Attributes:
        scored: rows with a score.
        failed: rows without one, for good.
        to_do: rows that are still to be scored, since a fault may pass: the same command scores them.
        kept: rows at `min_cosine` or above.
        unfinished: sources that could not be read to their end, and why.
        uncounted: of these, those whose rows could not be counted either; they are not in `to_do`.
    """

    scored: int = 0
    failed: int = 0
    to_do: int = 0
    kept: int = 0
    unfinished: tuple[tuple[str, str], ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """All that are known of."""
        return self.scored + self.failed + self.to_do

    @property
    def is_complete(self) -> bool:
        """Whether every row has a score."""
        return not (self.failed or self.to_do or self.unfinished)


def score_sources(
    job: Job,
    folder: ShardFolder,
    encoders: Sequence[Encoder],
    workers: Workers,
    progress: Callable[[int], object] = lambda rows: None,
) -> Report:
    """Scores all rows of all sources that have no score yet.

    A source that cannot be read on is left where it is, and the others are scored; the same call goes on with it.

    Args:
        job: sources and how to read them.
        folder: for the shards.
        encoders: of texts and pictures, one for each device.
        workers: that prepare pictures.
        progress: is called with the rows of each finished shard.
    """
    shards = folder.remove_damaged()
    unfinished: dict[str, str] = {}
    for shard in to_score_again(job, shards):
        progress(score_again(job, folder, shard, encoders, workers, unfinished))
    stream = _missing(job, shards, unfinished)
    numbers = folder.free_numbers()
    while (first := next(stream, None)) is not None:
        part = itertools.chain([first], itertools.islice(stream, job.shard_size - 1))
        progress(score_shard(folder, next(numbers), part, encoders, workers, job.min_cosine))
    return report_of(job, folder, unfinished)


def report_of(job: Job, folder: ShardFolder, unfinished: dict[str, str]) -> Report:
    """Adds up all shards of a folder, and what is missing of sources that could not be read to their end.

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


Placed = tuple[Row, str, Cursor, Cursor]
"""A row, the place of its source, and the cursors before and after it."""


def _missing(job: Job, shards: Sequence[Shard], unfinished: dict[str, str]) -> Iterator[Placed]:
    """The rows that no shard has."""
    spans = spans_by_source(shards)
    for source in job.sources:
        place = same_place(source.place)
        for cursor, count in gaps(spans[place]):
            try:
                yield from placed(source, cursor, count, job.retries)
            except (UserError, UnfinishedError) as error:
                unfinished[place] = str(error)
                break


def placed(source: Source, cursor: Cursor, count: int | None, retries: Retries) -> Iterator[Placed]:
    """Some rows of a source, each with where it stands.

    Raises:
        UserError: as `read_rows`.
        UnfinishedError: likewise.
    """
    place = same_place(source.place)
    for row, after in itertools.islice(read_rows(source, cursor, retries), count):
        yield row, place, cursor, after
        cursor = after


def to_score_again(job: Job, shards: Sequence[Shard]) -> list[Shard]:
    """Shards with rows whose error may have passed, or with any error if that is asked for."""
    return [shard for shard in shards if shard.to_do or (job.retry_errors and shard.failed)]


def score_again(
    job: Job,
    folder: ShardFolder,
    shard: Shard,
    encoders: Sequence[Encoder],
    workers: Workers,
    unfinished: dict[str, str],
) -> int:
    """Scores the rows of a shard again that have no score and may get one; gives how many.

    Args:
        job: of the run.
        folder: of the shard.
        shard: as it is.
        encoders: of texts and pictures, one for each device.
        workers: that prepare pictures.
        unfinished: gets the reason if a source cannot be read; the shard then stays as it is.
    """
    before = folder.rows(shard.number)
    again = [row.may_pass or (job.retry_errors and bool(row.error)) for row in before]
    rows: list[Row] = []
    for span in shard.spans:
        try:
            for row, *_ in placed(job.source_at(span.source), Cursor(span.start, span.offset), span.count, job.retries):
                # What has its score needs no picture, which may lie in memory.
                rows.append(row if again[len(rows)] else _without_bytes(row))
        except (UserError, UnfinishedError) as error:
            unfinished[span.source] = str(error)
            return 0
    _, scored = score_rows([row for row, is_due in zip(rows, again, strict=True) if is_due], encoders, workers)
    new = iter(scored)
    after = [next(new) if is_due else row for row, is_due in zip(before, again, strict=True)]
    kept = _write_kept(folder, shard.number, rows, after, job.min_cosine)
    folder.write(shard.number, after, shard.spans, kept)
    return len(scored)


def score_shard(
    folder: ShardFolder,
    number: int,
    rows: Iterable[Placed],
    encoders: Sequence[Encoder],
    workers: Workers,
    min_cosine: float | None,
) -> int:
    """Scores the rows of a shard as they come and writes it, whole or not at all; gives how many there are.

    Args:
        folder: for the shard.
        number: of the shard.
        rows: of the shard, in order; without any, nothing is written.
        encoders: of texts and pictures, one for each device.
        workers: that prepare pictures.
        min_cosine: rows that reach it are also written, as JSON lines beside the shard.
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

    read, scored = score_rows(noted(), encoders, workers)
    if scored:
        kept = _write_kept(folder, number, read, scored, min_cosine)
        # Last, for the shard says that all of it is there.
        folder.write(number, scored, spans, kept)
    return len(scored)


def score_rows(rows: Iterable[Row], encoders: Sequence[Encoder], workers: Workers) -> tuple[list[Row], list[Scored]]:
    """Scores rows as they come, in order.

    A picture or a text that stands in several rows is encoded once; pictures are the same if their bytes are.

    Args:
        rows: any number; pictures that they hold are let go once they are decoded.
        encoders: one for each device.
        workers: that prepare pictures.

    Returns:
        The rows without such pictures, and their scores.
    """
    read: list[Row] = []
    picture_of: list[int | None] = []
    known: dict[Located, int] = {}
    counter = itertools.count()

    def pictures() -> Iterator[Located | bytes]:
        for row in rows:
            read.append(_without_bytes(row))
            if row.error or row.image is None:
                picture_of.append(None)
            elif isinstance(row.image, Located) and row.image in known:
                picture_of.append(known[row.image])
            else:
                picture_of.append(next(counter))
                if isinstance(row.image, Located):
                    known[row.image] = picture_of[-1]  # type: ignore[assignment]
                yield row.image

    vectors, wrong = _encode(pictures(), encoders, workers)
    good = [row for row, picture in zip(read, picture_of, strict=True) if picture in vectors]
    texts = list(dict.fromkeys(row.text for row in good))
    of_text = dict(zip(texts, encoders[0].texts(texts) if texts else (), strict=True))
    scored = []
    for row, picture in zip(read, picture_of, strict=True):
        if picture is None or picture in wrong:
            prepared = Prepared(error=row.error or "no picture") if picture is None else wrong[picture]
            scored.append(Scored(row.row_id, None, prepared.error, prepared.may_pass))
            continue
        cosine = float(torch.dot(of_text[row.text], vectors[picture]))
        finite = math.isfinite(cosine)
        scored.append(Scored(row.row_id, cosine if finite else None, "" if finite else NOT_A_NUMBER))
    return read, scored


def _without_bytes(row: Row) -> Row:
    return replace(row, image=None) if isinstance(row.image, bytes) else row


def _encode(
    pictures: Iterable[Located | bytes], encoders: Sequence[Encoder], workers: Workers
) -> tuple[dict[int, Tensor], dict[int, Prepared]]:
    """Unit vectors of pictures by their places, and what is wrong with the others."""
    wrong: dict[int, Prepared] = {}
    digests: dict[int, bytes] = {}
    vector_of: dict[bytes, Tensor] = {}
    seen: set[bytes] = set()
    batch: dict[bytes, Tensor] = {}
    running: deque[tuple[list[bytes], Future[Callable[[], Tensor]]]] = deque()
    with ExitStack() as stack:
        # A thread for each device, which begins one batch after the other.
        threads = [stack.enter_context(ThreadPoolExecutor(1, "device")) for _ in encoders]
        turns = itertools.cycle(range(len(encoders)))

        def start() -> None:
            turn = next(turns)
            pixels = torch.stack(list(batch.values()))
            running.append((list(batch), threads[turn].submit(encoders[turn].begin, pixels)))
            batch.clear()

        def finish(most: int) -> None:
            while len(running) > most:
                names, begun = running.popleft()
                vector_of.update(zip(names, begun.result()(), strict=True))

        for place, prepared in workers.prepare(pictures):
            if prepared.pixels is None:
                wrong[place] = prepared
                continue
            digests[place] = prepared.digest
            if prepared.digest in seen:
                continue
            seen.add(prepared.digest)
            batch[prepared.digest] = torch.from_numpy(prepared.pixels)
            if len(batch) >= min(encoder.batch_size for encoder in encoders):
                finish(BATCHES_AHEAD * len(encoders) - 1)
                start()
        if batch:
            start()
        finish(0)
    return {place: vector_of[digest] for place, digest in digests.items()}, wrong


def _write_kept(
    folder: ShardFolder, number: int, rows: Sequence[Row], scored: Sequence[Scored], least: float | None
) -> int:
    if least is None:
        return 0
    kept = []
    for row, score in zip(rows, scored, strict=True):
        if score.cosine is not None and score.cosine >= least:
            image = {"image": row.image.url} if isinstance(row.image, Located) else {}
            language = {"language": row.language} if row.language else {}
            kept.append({"id": row.row_id, **image, "text": row.text, **language, "cosine": round(score.cosine, 6)})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    write_text(folder.path(number).with_suffix(".jsonl"), lines)
    return len(kept)
