"""Scoring and drawing on a Ray cluster: one actor for each GPU (or share of a CPU), any number of machines.

Ray Data (docs.ray.io/en/latest/data) hands out the work, holds back what the actors cannot take yet, and gives the work
of a machine that is lost to the others. A shard is written whole or not at all, under the same name wherever it is
scored, so that doing one twice does no harm; every machine must reach the sources and the output folder by the same
names.
"""

import io
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from altdiffusion_clip.bulk.pictures import Workers
from altdiffusion_clip.bulk.planning import ShardPlan, Span, count_rows, plan_shards
from altdiffusion_clip.bulk.rows import Row, rows_or_error
from altdiffusion_clip.bulk.scoring import Encoder, Job, Summary, fastest_batch_size, score_shard
from altdiffusion_clip.bulk.shards import Position, ShardFolder
from altdiffusion_clip.drawing import Settings, draw_batch
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.scoring import AltCLIPScorer


@dataclass(frozen=True)
class Model:
    """What an actor loads, and how it computes.

    Attributes:
        name: a folder, a single file or a hub id, that every machine reaches.
        dtype: of the arithmetic: "float32", "float16" or "bfloat16".
        batch_size: pictures at a time; each actor measures which is fastest there if not given.
        exact: decode JPEGs in full size.
        workers: processes that decode, in each actor.
    """

    name: str
    dtype: str = "float32"
    batch_size: int | None = None
    exact: bool = False
    workers: int = 0

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of that name."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Cluster:
    """Where to run.

    Attributes:
        address: of a cluster that is there, as `ray.init` takes it ("auto", "ray://head:10001"); a new one on this
            machine if empty.
        actors: at most so many at a time.
        gpus: of each actor; 0 to compute on CPUs.
        cpus: of each actor.
    """

    address: str = ""
    actors: int = 1
    gpus: float = 0
    cpus: float = 1


def connect(cluster: Cluster) -> None:
    """Joins a cluster, or starts one on this machine, unless this process is in one already.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    # Ray's own news go to its files; errors are raised.
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
        except Exception as error:  # Ray raises nearly anything where it finds no cluster
            reason = one_line(error)
            raise UserError(f"cannot join the Ray cluster {cluster.address or 'on this machine'}: {reason}") from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":
            handler.setLevel(logging.ERROR)


def _check_address(address: str) -> None:
    """Ray itself waits long for a cluster that is not there."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if not found:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"there is no Ray cluster at {address} ({error}); start one with: ray start --head") from None


def score_on_ray(
    job: Job, folder: ShardFolder, model: Model, cluster: Cluster, progress: Callable[[int], object] = lambda rows: None
) -> Summary:
    """Scores all rows of all sources, but for those of shards that are there.

    Args:
        job: sources and how to read them.
        folder: for the shards, which every machine reaches.
        model: that scores.
        cluster: to run on; `connect` first.
        progress: is called with the rows of each finished shard.

    Raises:
        UserError: a source cannot be read at all.
    """
    import ray.data

    counts = _counts(job)
    missing = [plan for plan in plan_shards(counts, job.shard_size) if not folder.path(plan.number).is_file()]
    if not missing:
        return Summary()
    shards = ray.data.from_items([_as_item(plan) for plan in missing], override_num_blocks=len(missing))
    done = shards.map_batches(
        ShardScorer,
        fn_constructor_args=(job, str(folder.folder.absolute()), model),
        batch_size=1,
        **_actors(cluster, len(missing)),
    )
    total = Summary()
    for row in done.iter_rows():
        total += Summary(int(row["rows"]), int(row["failed"]), int(row["kept"]))
        progress(int(row["rows"]))
    return total


class ShardScorer:
    """An actor: has the model in memory and scores one shard after the other."""

    def __init__(self, job: Job, folder: str, model: Model) -> None:
        device = own_device()
        scorer = AltCLIPScorer.from_pretrained(model.name).to(device).eval()
        self._encoder = Encoder(scorer, model.torch_dtype)
        self._encoder.batch_size = model.batch_size or fastest_batch_size(self._encoder)
        self._workers = Workers(self._encoder.image_processor, model.workers, model.exact)
        self._job, self._folder = job, ShardFolder.there(Path(folder))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores a shard, and says how many rows it has."""
        plan = _of_item(batch["shard"][0])
        job = self._job
        rows = [row for span in plan.spans for row in _rows(job, span)]
        done = score_shard(
            self._folder, plan.number, rows, plan.following, [self._encoder], self._workers, job.min_cosine
        )
        return {key: np.array([value]) for key, value in asdict(done).items()}


def draw_on_ray(jobs: Sequence[Settings], model: Model, cluster: Cluster) -> Iterator[list[bytes | None]]:
    """Draws batches, in order: PNGs without settings, None for a picture that came out as not a number.

    Args:
        jobs: the batches.
        model: that draws.
        cluster: to run on; `connect` first.
    """
    import ray.data

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    items = [{"job": asdict(job)} for job in jobs]
    drawn = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        BatchDrawer, fn_constructor_args=(model,), batch_size=1, **_actors(cluster, len(items))
    )
    for row in drawn.iter_rows():
        yield [png or None for png in row["pictures"]]


class BatchDrawer:
    """An actor: has the pipeline in memory and draws one batch after the other."""

    def __init__(self, model: Model) -> None:
        pipeline = AltDiffusionPipeline.from_pretrained(model.name, dtype=model.torch_dtype)
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline.to(own_device())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Draws a batch."""
        values = batch["job"][0]
        settings = Settings(**{**values, "batch_seeds": tuple(int(seed) for seed in values["batch_seeds"])})
        return {"pictures": [[_png(image) for image in draw_batch(self._pipeline, settings)]]}


def _png(image: Image.Image | None) -> bytes:
    if image is None:
        return b""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _counts(job: Job) -> list[int]:
    """Rows of each source, counted on the cluster."""
    import ray

    count: Any = ray.remote(count_rows)
    waiting = [count.remote(source, job.columns, job.image_root) for source in job.sources]
    try:
        return ray.get(waiting)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        raise


def _rows(job: Job, span: Span) -> Iterator[Row]:
    return rows_or_error(job.sources[span.source], job.columns, span.start, job.image_root, span.count)


def _actors(cluster: Cluster, tasks: int) -> dict[str, Any]:
    import ray.data

    most = max(1, min(cluster.actors, tasks))
    return {
        "compute": ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        "num_cpus": cluster.cpus,
        "num_gpus": cluster.gpus,
    }


def own_device() -> torch.device:
    """The GPU that Ray has given to this actor, or the CPU."""
    import ray

    return torch.device("cuda" if ray.get_gpu_ids() else "cpu")


def _as_item(plan: ShardPlan) -> dict[str, Any]:
    spans = [[span.source, span.start, span.count] for span in plan.spans]
    return {"shard": {"number": plan.number, "spans": spans, "following": asdict(plan.following)}}


def _of_item(item: dict[str, Any]) -> ShardPlan:
    spans = tuple(Span(*(int(value) for value in span)) for span in item["spans"])
    following = Position(**{key: int(value) for key, value in item["following"].items()})
    return ShardPlan(int(item["number"]), spans, following)
