"""Scores and draws on a Ray cluster: one actor per GPU (or share of CPUs), on any number of machines.

Ray Data (docs.ray.io/en/latest/data) hands out the work at the pace of the actors, and moves the work of a lost
machine to the others. A shard is written completely or not at all, under the same name wherever it is scored, so
scoring one twice does no harm. Every machine must reach the sources and the output folder by the same names.
"""

import io
import itertools
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from altdiffusion_clip.bulk.scoring import (
    Job,
    Placed,
    Report,
    missing,
    placed,
    report_of,
    score_again,
    score_shard,
    score_stream,
    to_score_again,
)
from altdiffusion_clip.bulk.shards import Shard, ShardFolder, Span, gaps, spans_by_source
from altdiffusion_clip.drawing.calls import Drawer
from altdiffusion_clip.drawing.generation import Drawn, Engine, drawn_by, settings_of_batch
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.drawing.tasks import Task
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.judges.encoding import Bench, fastest_batch_size
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.pictures import Workers
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.sources.places import same_place
from altdiffusion_clip.sources.row import Cursor
from altdiffusion_clip.sources.rows import Source, UnfinishedError, count_rows, kind_of

BLOCKS_AN_ACTOR = 64
"""Drawing batches in one piece of work. If an actor is lost, one piece is drawn again."""
_PNG_MARK = b"\x89PNG"


@dataclass(frozen=True)
class Model:
    """What an actor loads, and how it computes.

    Attributes:
        names: a folder, single file or hub id that every machine can reach; for judges one or several.
        dtype: to compute in: "float32", "float16" or "bfloat16".
        batch_size: pictures at a time; by default each actor measures which is fastest.
        exact: decode pictures at full size.
        max_pixels: larger pictures are rejected.
        workers: decoding processes in each actor.
        long_text: how judges read texts that are too long.
    """

    names: tuple[str, ...]
    dtype: str = "float32"
    batch_size: int | None = None
    exact: bool = False
    max_pixels: int | None = None
    workers: int = 0
    long_text: str = "truncate"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype with this name."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Cluster:
    """Where to run.

    Attributes:
        address: of a running cluster, as for `ray.init` ("auto", "ray://head:10001"); empty to start one on this
            machine.
        actors: how many at most.
        gpus: per actor; 0 to compute on CPUs.
        cpus: per actor.
    """

    address: str = ""
    actors: int = 1
    gpus: float = 0
    cpus: float = 1


def connect(cluster: Cluster) -> None:
    """Joins a cluster, or starts one on this machine, unless this process is already in one.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    # Ray logs to its own files; errors are raised.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError('--engine ray needs Ray; pip install "altdiffusion-clip[ray]"') from None
    if not ray.is_initialized():
        _check_address(cluster.address)
        try:
            ray.init(
                address=cluster.address or None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                configure_logging=False,
            )
        except Exception as error:  # Ray raises nearly anything if it finds no cluster
            reason = one_line(error)
            raise UserError(f"cannot join the Ray cluster {cluster.address or 'on this machine'}: {reason}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.ERROR)


def _check_address(address: str) -> None:
    """Fails early, because Ray itself waits long for a cluster that does not exist."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"there is no Ray cluster at {address} ({error}); start one with: ray start --head") from None


def score_on_ray(
    job: Job, folder: ShardFolder, model: Model, cluster: Cluster, progress: Callable[[int], object] = lambda rows: None
) -> Report:
    """Scores all rows that have no score yet, as `score_sources` does.

    Args:
        job: sources and how to read them.
        folder: for the shards; every machine must reach it.
        model: to score with.
        cluster: to run on; call `connect` first.
        progress: is called with the rows of each finished shard.
    """
    import ray.data

    shards = folder.remove_damaged()
    unfinished: dict[str, str] = {}
    whole, counted = _by_kind(job, unfinished)
    missing_shards = list(_missing_shards(job, counted, folder, shards, unfinished))
    tasks = [_as_item(shard.number, ()) for shard in to_score_again(job, shards)]
    tasks += [_as_item(number, spans) for number, spans in missing_shards]
    tasks += [_as_item(None, (), source.place) for source in whole]
    if tasks:
        taken = {shard.number for shard in shards} | {number for number, _ in missing_shards}
        numbers: Any = ray.remote(num_cpus=0)(Numbers).remote(sorted(taken)) if whole else None
        done = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            ShardScorer,
            fn_constructor_args=(job, str(folder.folder.absolute()), model, numbers),
            batch_size=1,
            **_actors(cluster, len(tasks)),
        )
        for row in done.iter_rows():
            progress(int(row["rows"]))
            unfinished.update(json.loads(row["unfinished"]))
    return report_of(job, folder, unfinished)


class Numbers:
    """An actor that gives out shard numbers, each once.

    Args:
        taken: numbers that are in use.
    """

    def __init__(self, taken: Sequence[int]) -> None:
        known = set(taken)
        self._free = (number for number in itertools.count() if number not in known)

    def next(self) -> int:
        """The next number."""
        return next(self._free)


class ShardScorer:
    """An actor that holds the model and scores one shard after another."""

    def __init__(self, job: Job, folder: str, model: Model, numbers: Any) -> None:
        self._numbers = numbers
        panel = load_panel(model.names, own_device(), model.torch_dtype, long_text=model.long_text)
        self._bench = Bench(panel, model.batch_size or fastest_batch_size(panel.members[0]))
        self._workers = Workers(self._bench.preparation(model.exact, model.max_pixels, job.retries), model.workers)
        self._job, self._folder = job, ShardFolder.there(Path(folder))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores a shard or a source. Returns the number of rows, and why sources could not be read further."""
        number, spans, place = _of_item(str(batch["task"][0]))
        unfinished: dict[str, str] = {}
        common = ([self._bench], self._workers)
        if place:
            done = self._source(place, unfinished)
        elif spans:
            rows = self._rows(spans, unfinished)
            done = score_shard(self._folder, number, rows, *common, self._job)
        else:
            shard = next(shard for shard in self._folder.shards() if shard.number == number)
            done = score_again(self._job, self._folder, shard, *common, unfinished)
        return {"rows": np.array([done]), "unfinished": np.array([json.dumps(unfinished)])}

    def _source(self, place: str, unfinished: dict[str, str]) -> int:
        """Scores what is missing of a source, including what a lost actor has left."""
        import ray

        job, folder = self._job, self._folder
        stream = missing(job, [job.source_at(same_place(place))], folder.shards(), unfinished)

        def next_number() -> int:
            return int(ray.get(self._numbers.next.remote()))

        return sum(score_stream(job, folder, stream, next_number, [self._bench], self._workers))

    def _rows(self, spans: Sequence[Span], unfinished: dict[str, str]) -> Iterator[Placed]:
        job = self._job
        for span in spans:
            try:
                yield from placed(job.source_at(span.source), Cursor(span.start, span.offset), span.count, job.retries)
            except (UserError, UnfinishedError) as error:
                unfinished[span.source] = str(error)


def ray_engine(model: Model, cluster: Cluster) -> Engine:
    """Draws batches on a cluster, in order.

    Args:
        model: to draw with.
        cluster: to run on; call `connect` first.
    """

    def draw(batches: Iterable[list[Task]]) -> Iterator[tuple[list[Task], Drawn]]:
        import ray.data

        todo = list(batches)
        sound = [batch for batch in todo if not batch[0].error]
        items = [{"job": json.dumps(asdict(settings_of_batch(batch)))} for batch in sound]
        drawn: Iterator[Any] = iter(())
        if items:
            ray.data.DataContext.get_current().execution_options.preserve_order = True
            blocks = min(len(items), BLOCKS_AN_ACTOR * cluster.actors)
            pictures = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
                BatchDrawer, fn_constructor_args=(model,), batch_size=1, **_actors(cluster, len(items))
            )
            drawn = iter(pictures.iter_rows())
        for batch in todo:
            if batch[0].error:
                yield batch, [task.error for task in batch]
            else:
                yield batch, [_picture(each) for each in next(drawn)["pictures"]]

    return draw


def _picture(given: bytes) -> Image.Image | str:
    return Image.open(io.BytesIO(given)) if given.startswith(_PNG_MARK) else given.decode()


class BatchDrawer:
    """An actor that holds the pipeline and draws one batch after another."""

    def __init__(self, model: Model) -> None:
        pipeline = AltDiffusionPipeline.from_pretrained(model.names[0], dtype=model.torch_dtype)
        pipeline.set_progress_bar_config(disable=True)
        self._drawer = Drawer(pipeline.to(own_device()))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Draws a batch as PNGs without settings; in place of a picture that failed, the reason."""
        settings = Settings.from_dict(json.loads(str(batch["job"][0])))
        return {"pictures": [[_png(each) for each in drawn_by(self._drawer, settings)]]}


def _png(drawn: Image.Image | str) -> bytes:
    if isinstance(drawn, str):
        return drawn.encode()
    encoded = io.BytesIO()
    drawn.save(encoded, "PNG")
    return encoded.getvalue()


def _by_kind(job: Job, unfinished: dict[str, str]) -> tuple[list[Source], list[Source]]:
    """Splits sources into those that one actor reads from beginning to end, and those whose rows are counted first.

    Counting the rows of a tar, or starting in its middle, means reading it.
    """
    whole: list[Source] = []
    counted: list[Source] = []
    for source in job.sources:
        try:
            (whole if kind_of(source.place, job.retries) == ".tar" else counted).append(source)
        except UserError as error:
            unfinished[same_place(source.place)] = str(error)
    return whole, counted


def _missing_shards(
    job: Job, sources: Sequence[Source], folder: ShardFolder, shards: Sequence[Shard], unfinished: dict[str, str]
) -> Iterator[tuple[int, tuple[Span, ...]]]:
    """Plans shards for all rows that no shard has yet. Rows are counted on the cluster."""
    import ray

    count: Any = ray.remote(count_rows)
    waiting = {same_place(source.place): count.remote(source, job.retries) for source in sources}
    spans, missing = spans_by_source(shards), list[Span]()
    for place, counted in waiting.items():
        try:
            total = ray.get(counted)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, (UserError, UnfinishedError)):
                raise
            unfinished[place] = str(error.cause)
            continue
        for cursor, known in gaps(spans[place]):
            rows = total - cursor.row if known is None else known
            if rows > 0:
                missing.append(Span(place, cursor.row, rows, cursor.offset))
    return zip(folder.free_numbers(), cut_into_shards(missing, job.shard_size), strict=False)


def cut_into_shards(spans: Sequence[Span], shard_size: int) -> Iterator[tuple[Span, ...]]:
    """Cuts spans into shards, in order. The last shard may have fewer rows.

    Args:
        spans: rows to score.
        shard_size: rows in a shard.

    Example:
        >>> for shard in cut_into_shards([Span("a", 0, 3), Span("c", 5, 3)], 4):
        ...     print([(span.source, span.start, span.count) for span in shard])
        [('a', 0, 3), ('c', 5, 1)]
        [('c', 6, 2)]
    """
    shard, room = list[Span](), shard_size
    for span in spans:
        start, offset, last = span.start, span.offset, span.start + span.count
        while start < last:
            taken = min(room, last - start)
            shard.append(Span(span.source, start, taken, offset))
            # If a shard starts in the middle of a span, the rows before it are skipped.
            start, offset, room = start + taken, None, room - taken
            if not room:
                yield tuple(shard)
                shard, room = [], shard_size
    if shard:
        yield tuple(shard)


def _actors(cluster: Cluster, tasks: int) -> dict[str, Any]:
    import ray.data

    most = max(1, min(cluster.actors, tasks))
    return {
        "compute": ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        "num_cpus": cluster.cpus,
        "num_gpus": cluster.gpus,
    }


def own_device() -> torch.device:
    """The GPU that Ray gave to this actor, or the CPU."""
    import ray

    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _as_item(number: int | None, spans: Sequence[Span], source: str = "") -> dict[str, Any]:
    return {"task": json.dumps({"number": number, "spans": [asdict(span) for span in spans], "source": source})}


def _of_item(item: str) -> tuple[int, tuple[Span, ...], str]:
    task = json.loads(item)
    return task["number"], tuple(Span(**span) for span in task["spans"]), task["source"]
