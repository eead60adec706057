"""Scores of rows, a shard at a time: every distinct text and picture is encoded once in each."""

import copy
import functools
import itertools
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.bulk.pictures import Workers
from altdiffusion_clip.bulk.rows import Columns, Located, Row, rows_or_error
from altdiffusion_clip.bulk.shards import Position, Scored, ShardFolder
from altdiffusion_clip.files import write_text
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.scores import NOT_A_NUMBER
from altdiffusion_clip.scoring import AltCLIPScorer

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 256
PICTURES_ON_CPU = 8
"""At a time: of ViT-L/14 in bfloat16 8 were a fifth faster than 32, whose activations do not fit into caches."""


@dataclass
class Encoder:
    """A scorer's two towers on one device, with the preprocessing's arithmetic on that device.

    Args:
        scorer: with its processor, in evaluation mode.
        dtype: of the arithmetic of both towers.
        batch_size: pictures at a time; halved when the device's memory does not hold them.
    """

    scorer: AltCLIPScorer
    dtype: torch.dtype
    batch_size: int = 32

    def __post_init__(self) -> None:
        self.scorer = self.scorer.to(self.dtype).eval()
        processor: Any = self.scorer.processor
        self.image_processor, self.tokenizer = processor.image_processor, processor.tokenizer
        place = self.scorer.device
        self._mean = torch.tensor(self.image_processor.image_mean, device=place).view(1, 3, 1, 1)
        self._std = torch.tensor(self.image_processor.image_std, device=place).view(1, 3, 1, 1)
        self._factor = float(self.image_processor.rescale_factor)
        self._copies = torch.cuda.Stream(place) if place.type == "cuda" else None

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the CPU."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        vectors = torch.empty(len(texts), self.scorer.config.projection_dim)
        for start in range(0, len(order), TEXTS_AT_ONCE):
            places = order[start : start + TEXTS_AT_ONCE]
            ids, mask = tokenize(self.tokenizer, [texts[place] for place in places])
            features = self.scorer.get_text_features(ids.to(self.scorer.device), mask.to(self.scorer.device))
            vectors[places] = F.normalize(features.float(), dim=-1).cpu()
        return vectors

    def pictures(self, pixels: Tensor) -> Tensor:
        """Unit vectors, float32 (pictures, dim), on the CPU, of uint8 (pictures, 3, side, side)."""
        return self.begin(pixels)()

    @torch.no_grad()
    def begin(self, pixels: Tensor) -> Callable[[], Tensor]:
        """Begins what `pictures` does, and gives what waits for the vectors.

        A GPU works through what was begun while the next batch is pinned, copied and begun.
        """
        try:
            vectors = self._unit_vectors(self._on_device(pixels))
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
        else:
            return _copied(vectors)
        # Not while the error is handled, for it holds on to what there was memory for.
        torch.cuda.empty_cache()
        self.batch_size = max(1, len(pixels) // 2)
        logger.warning("batches of %d pictures do not fit; going on with %d", len(pixels), self.batch_size)
        parts = [self.begin(part) for part in pixels.split(self.batch_size)]
        return lambda: torch.cat([part() for part in parts])

    def _on_device(self, pixels: Tensor) -> Tensor:
        device = self.scorer.device
        if self._copies is None:
            return pixels.to(device)
        # On a stream of their own, so that they are copied while the batch before is computed.
        with torch.cuda.stream(self._copies):
            copied = pixels.pin_memory().to(device, non_blocking=True)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(self._copies)
        copied.record_stream(computing)
        return copied

    def _unit_vectors(self, pixels: Tensor) -> Tensor:
        normalised = pixels.float().mul_(self._factor).sub_(self._mean).div_(self._std).to(self.dtype)
        return F.normalize(self.scorer.get_image_features(normalised).float(), dim=-1)


def _copied(vectors: Tensor) -> Callable[[], Tensor]:
    """Begins to copy vectors to the CPU, and gives what waits for them."""
    if vectors.device.type != "cuda":
        return vectors.cpu
    # Into pinned memory, so that this returns at once; they are there when the event is.
    on_cpu = vectors.to("cpu", non_blocking=True)
    done = torch.cuda.current_stream(vectors.device).record_event()

    def wait() -> Tensor:
        done.synchronize()
        return on_cpu

    return wait


def fastest_dtype(scorer: AltCLIPScorer, batch_size: int = 8, rounds: int = 3) -> torch.dtype:
    """The arithmetic in which the vision tower is fastest here, measured on the spot: float32 or the device's half.

    bfloat16 on CPUs, float16 on GPUs; a half must be faster by a fifth to be taken, since it rounds.
    """
    half = torch.float16 if scorer.device.type == "cuda" else torch.bfloat16
    side = scorer.config.vision_config.image_size
    pixels = torch.randn(batch_size, 3, side, side, device=scorer.device)
    seconds = {}
    for dtype in (torch.float32, half):
        run = functools.partial(copy.deepcopy(scorer.vision_model).to(dtype), pixels.to(dtype))
        seconds[dtype] = min(_timed(run, scorer.device) for _ in range(rounds))
    return half if seconds[half] * 1.2 < seconds[torch.float32] else torch.float32


def fastest_batch_size(encoder: Encoder, most: int = 512, gain: float = 1.05) -> int:
    """How many pictures at a time a GPU encodes fastest, measured on the spot; `PICTURES_ON_CPU` on others.

    Doubled until that gains less than a twentieth, or until the memory is full.
    """
    scorer = encoder.scorer
    if scorer.device.type != "cuda":
        return PICTURES_ON_CPU
    side, size, best = scorer.config.vision_config.image_size, encoder.batch_size, 0.0
    while size <= most:
        pixels = torch.zeros(size, 3, side, side, dtype=encoder.dtype, device=scorer.device)
        try:
            seconds = min(_timed(functools.partial(scorer.get_image_features, pixels), scorer.device) for _ in range(3))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if size / seconds < gain * best:
            break
        size, best = 2 * size, size / seconds
    return max(encoder.batch_size, size // 2)


@torch.no_grad()
def _timed(run: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def score_rows(rows: Sequence[Row], encoders: Sequence[Encoder], workers: Workers) -> list[Scored]:
    """Scores the rows of a shard, in order.

    A picture or a text that stands in several rows is encoded once; pictures are the same if their bytes are.

    Args:
        rows: of the shard.
        encoders: one for each device.
        workers: that prepare pictures.
    """
    good = [row for row in rows if not row.error]
    texts = list(dict.fromkeys(row.text for row in good))
    of_text = dict(zip(texts, encoders[0].texts(texts) if texts else (), strict=True))
    pictures = list(dict.fromkeys(row.image for row in good if row.image is not None))
    vectors, errors = _encode(pictures, encoders, workers)
    scored = []
    for row in rows:
        error = row.error or (errors.get(row.image, "") if row.image is not None else "")
        if error or row.image is None:
            scored.append(Scored(row.row_id, None, error or "no picture"))
            continue
        cosine = float(torch.dot(of_text[row.text], vectors[row.image]))
        finite = math.isfinite(cosine)
        scored.append(Scored(row.row_id, cosine if finite else None, "" if finite else NOT_A_NUMBER))
    return scored


BATCHES_AHEAD = 2
"""On each device, so that it does not wait while the next batch is gathered."""


def _encode(
    pictures: Sequence[Located | bytes], encoders: Sequence[Encoder], workers: Workers
) -> tuple[dict[Located | bytes, Tensor], dict[Located | bytes, str]]:
    errors: dict[Located | bytes, str] = {}
    digests: dict[Located | bytes, bytes] = {}
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
                errors[pictures[place]] = prepared.error
                continue
            digests[pictures[place]] = prepared.digest
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
    return {picture: vector_of[digest] for picture, digest in digests.items()}, errors


@dataclass(frozen=True)
class Summary:
    """What a run, or a shard of it, did.

    Attributes:
        rows: scored or not, in this run.
        failed: of these, without a score.
        kept: of these, at `min_cosine` or above; 0 if it was not asked for.
    """

    rows: int = 0
    failed: int = 0
    kept: int = 0

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(self.rows + other.rows, self.failed + other.failed, self.kept + other.kept)


@dataclass(frozen=True)
class Job:
    """What is to be scored.

    Attributes:
        sources: as for `read_rows`.
        columns: names of their fields.
        shard_size: rows in a shard.
        image_root: where relative paths of pictures begin.
        min_cosine: rows that reach it are also written, as JSON lines beside each shard.
    """

    sources: tuple[str, ...]
    columns: Columns = field(default_factory=Columns)
    shard_size: int = 10_000
    image_root: str = ""
    min_cosine: float | None = None


def score_sources(
    job: Job,
    folder: ShardFolder,
    encoders: Sequence[Encoder],
    workers: Workers,
    progress: Callable[[int], object] = lambda rows: None,
) -> Summary:
    """Scores all rows of all sources, going on after the last whole shard.

    A source that can no longer be read counts as one row without a score. (`check_source` tells beforehand.)

    Args:
        job: sources and how to read them.
        folder: for the shards.
        encoders: of texts and pictures, one for each device.
        workers: that prepare pictures.
        progress: is called with the rows of each finished shard.

    Raises:
        UserError: a shard that is there is damaged.
    """
    number, position = folder.resume()
    total = Summary()
    stream = _from(job, position)
    while part := list(itertools.islice(stream, job.shard_size)):
        done = score_shard(folder, number, [row for row, _ in part], part[-1][1], encoders, workers, job.min_cosine)
        number += 1
        total += done
        progress(done.rows)
    return total


def score_shard(
    folder: ShardFolder,
    number: int,
    rows: Sequence[Row],
    following: Position,
    encoders: Sequence[Encoder],
    workers: Workers,
    min_cosine: float | None,
) -> Summary:
    """Scores the rows of a shard and writes it, whole or not at all.

    Args:
        folder: for the shard.
        number: of the shard.
        rows: of the shard, in order.
        following: where the next row is.
        encoders: of texts and pictures, one for each device.
        workers: that prepare pictures.
        min_cosine: rows that reach it are also written, as JSON lines beside the shard.
    """
    scored = score_rows(rows, encoders, workers)
    kept = 0
    if min_cosine is not None:
        kept = _write_kept(folder.path(number).with_suffix(".jsonl"), rows, scored, min_cosine)
    # Last, for the shard says that all of it is there.
    folder.write(number, scored, following)
    return Summary(len(rows), sum(row.cosine is None for row in scored), kept)


def _from(job: Job, position: Position) -> Iterator[tuple[Row, Position]]:
    """The rows from a position on, each with the position after it."""
    for place, source in enumerate(job.sources):
        if place < position.source:
            continue
        start = position.row if place == position.source else 0
        for number, row in enumerate(rows_or_error(source, job.columns, start, job.image_root), start):
            yield row, Position(place, number + 1)


def _write_kept(path: Path, rows: Sequence[Row], scored: Sequence[Scored], least: float) -> int:
    kept = []
    for row, score in zip(rows, scored, strict=True):
        if score.cosine is not None and score.cosine >= least:
            image = {"image": row.image.url} if isinstance(row.image, Located) and row.image.size is None else {}
            language = {"language": row.language} if row.language else {}
            kept.append({"id": row.row_id, **image, "text": row.text, **language, "cosine": round(score.cosine, 6)})
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return len(kept)
