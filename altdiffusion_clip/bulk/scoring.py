"""Scores of rows, a shard at a time: every distinct text and picture is encoded once in each."""

import copy
import functools
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.bulk.pictures import Workers
from altdiffusion_clip.bulk.rows import Columns, Located, Row, read_rows
from altdiffusion_clip.bulk.shards import Position, Scored, ShardFolder
from altdiffusion_clip.files import write_text
from altdiffusion_clip.prompts import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 256


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

    @torch.inference_mode()
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

    @torch.inference_mode()
    def pictures(self, pixels: Tensor) -> Tensor:
        """Unit vectors, float32 (pictures, dim), on the CPU, of uint8 (pictures, 3, side, side)."""
        try:
            place = self.scorer.device
            if place.type == "cuda":
                pixels = pixels.pin_memory()
            on_device = pixels.to(place, non_blocking=True).float().mul_(self._factor)
            normalised = on_device.sub_(self._mean).div_(self._std).to(self.dtype)
            return F.normalize(self.scorer.get_image_features(normalised).float(), dim=-1).cpu()
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            torch.cuda.empty_cache()
            self.batch_size = max(1, len(pixels) // 2)
            logger.warning("batches of %d pictures do not fit; going on with %d", len(pixels), self.batch_size)
            return torch.cat([self.pictures(part) for part in pixels.split(self.batch_size)])


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


@torch.inference_mode()
def _timed(run: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def score_rows(rows: Sequence[Row], encoder: Encoder, workers: Workers) -> list[Scored]:
    """Scores the rows of a shard, in order.

    A picture or a text that stands in several rows is encoded once; pictures are the same if their bytes are.
    """
    good = [row for row in rows if not row.error]
    texts = list(dict.fromkeys(row.text for row in good))
    of_text = dict(zip(texts, encoder.texts(texts) if texts else (), strict=True))
    pictures = list(dict.fromkeys(row.image for row in good if row.image is not None))
    vectors, errors = _encode(pictures, encoder, workers)
    scored = []
    for row in rows:
        error = row.error or (errors.get(row.image, "") if row.image is not None else "")
        if error or row.image is None:
            scored.append(Scored(row.row_id, None, error or "no picture"))
            continue
        cosine = float(torch.dot(of_text[row.text], vectors[row.image]))
        # A model that was given no weights to speak of can divide zero by zero.
        finite = cosine == cosine
        scored.append(Scored(row.row_id, cosine if finite else None, "" if finite else "the score is not a number"))
    return scored


def _encode(
    pictures: Sequence[Located | bytes], encoder: Encoder, workers: Workers
) -> tuple[dict[Located | bytes, Tensor], dict[Located | bytes, str]]:
    errors: dict[Located | bytes, str] = {}
    digests: dict[Located | bytes, bytes] = {}
    known: dict[bytes, Tensor] = {}
    waiting: dict[bytes, Tensor] = {}

    def flush() -> None:
        if waiting:
            vectors = encoder.pictures(torch.stack(list(waiting.values())))
            known.update(zip(waiting, vectors, strict=True))
            waiting.clear()

    for place, prepared in workers.prepare(pictures):
        if prepared.pixels is None:
            errors[pictures[place]] = prepared.error
            continue
        digests[pictures[place]] = prepared.digest
        if prepared.digest not in known and prepared.digest not in waiting:
            waiting[prepared.digest] = torch.from_numpy(prepared.pixels)
            if len(waiting) >= encoder.batch_size:
                flush()
    flush()
    return {picture: known[digest] for picture, digest in digests.items()}, errors


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        rows: scored or not, in this run.
        failed: of these, without a score.
        kept: of these, at `min_cosine` or above; None if it was not asked for.
    """

    rows: int
    failed: int
    kept: int | None


def score_sources(
    sources: Sequence[str],
    columns: Columns,
    folder: ShardFolder,
    encoder: Encoder,
    workers: Workers,
    shard_size: int,
    image_root: str = "",
    min_cosine: float | None = None,
    progress: Callable[[int], object] = lambda rows: None,
) -> Summary:
    """Scores all rows of all sources, going on after the last whole shard.

    Args:
        sources: as for `read_rows`.
        columns: names of their fields.
        folder: for the shards.
        encoder: of texts and pictures.
        workers: that prepare pictures.
        shard_size: rows in a shard.
        image_root: where relative paths of pictures begin.
        min_cosine: rows that reach it are also written, as JSON lines beside each shard.
        progress: is called with the rows of each finished shard.

    Raises:
        UserError: a source cannot be read at all.
    """
    number, position = folder.resume()
    total, failed, kept = 0, 0, 0
    stream = _from(sources, columns, position, image_root)
    while part := list(itertools.islice(stream, shard_size)):
        rows = [row for row, _ in part]
        scored = score_rows(rows, encoder, workers)
        if min_cosine is not None:
            kept += _write_kept(folder.path(number).with_suffix(".jsonl"), rows, scored, min_cosine)
        # Last, for the shard says that all of it is there.
        folder.write(number, scored, part[-1][1])
        number += 1
        total += len(rows)
        failed += sum(row.cosine is None for row in scored)
        progress(len(rows))
    return Summary(total, failed, kept if min_cosine is not None else None)


def _from(
    sources: Sequence[str], columns: Columns, position: Position, image_root: str
) -> Iterator[tuple[Row, Position]]:
    """The rows from a position on, each with the position after it."""
    for place, source in enumerate(sources):
        if place < position.source:
            continue
        start = position.row if place == position.source else 0
        for number, row in enumerate(read_rows(source, columns, start, image_root), start):
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
