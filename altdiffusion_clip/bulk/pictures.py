"""Pictures read, decoded and cut to what a vision tower takes, by workers beside the one that encodes."""

import hashlib
import io
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from altdiffusion_clip.bulk.rows import Located
from altdiffusion_clip.images import ImageError, load_image
from altdiffusion_clip.long_pictures import middle_of_long

CHUNK = 4
"""Pictures that a worker takes at a time: few, since the first batch of the tower waits for the first chunks."""
DRAFT, DRAFT_LEAST = 1.5, 192
"""JPEGs are decoded to no less than so many times the side that the tower sees, and so many pixels."""


@dataclass(frozen=True)
class Prepared:
    """A picture ready for the tower, or what is wrong with it.

    Attributes:
        digest: of its encoded bytes.
        pixels: uint8 (3, side, side); None if there is an error.
        error: one line.
    """

    digest: bytes = b""
    pixels: np.ndarray | None = None
    error: str = ""


class Workers:
    """Workers that prepare pictures.

    Args:
        image_processor: transformers', as the scorer has it.
        count: processes; 0 for two threads in this process, which is as fast on few cores, since Pillow decodes and
            scales without holding the interpreter.
        exact: decode JPEGs in full size.
    """

    def __init__(self, image_processor: Any, count: int = 0, exact: bool = False) -> None:
        size = image_processor.size
        side = size.get("shortest_edge") or min(size.get("height", 0), size.get("width", 0))
        self._settings = (
            image_processor.to_dict(),
            type(image_processor),
            None if exact else max(int(DRAFT * side), DRAFT_LEAST),
        )
        self._executor: Executor
        if count:
            # Forked processes would inherit the threads' locks of torch.
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(count, context, _start, self._settings)
        else:
            self._executor = ThreadPoolExecutor(2, "pictures", _start, self._settings)
        self._ahead = 4 * max(count, 2)

    def prepare(self, pictures: Sequence[Located | bytes]) -> Iterator[tuple[int, Prepared]]:
        """Prepares pictures, some chunks ahead; gives the place of each with it, in order."""
        starts = deque(range(0, len(pictures), CHUNK))
        waiting: deque[tuple[int, Future[list[Prepared]]]] = deque()
        while starts or waiting:
            while starts and len(waiting) < self._ahead:
                start = starts.popleft()
                waiting.append((start, self._executor.submit(_prepare, pictures[start : start + CHUNK])))
            start, future = waiting.popleft()
            yield from enumerate(future.result(), start)

    def close(self) -> None:
        """Ends the workers."""
        self._executor.shutdown(cancel_futures=True)


def default_workers(beside_gpu: bool, cores: int | None = None) -> int:
    """How many processes prepare pictures unless told otherwise: one for each core but two.

    Eight at most where the tower computes on the same cores; a GPU takes what all of them can give.

    Args:
        beside_gpu: the tower computes on a GPU.
        cores: that there are; those that this process may use if not given.
    """
    if cores is None:
        # Not the machine's: a container or a job of a cluster may have few of them.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores - 2 if beside_gpu else min(8, cores - 2))


_processor: Any = None
_at_least: int | None = None


def _start(settings: dict[str, Any], kind: type[Any], at_least: int | None) -> None:
    global _processor, _at_least
    _processor, _at_least = kind.from_dict(settings), at_least


def _prepare(pictures: Sequence[Located | bytes]) -> list[Prepared]:
    return [_prepare_one(picture) for picture in pictures]


def _prepare_one(picture: Located | bytes) -> Prepared:
    try:
        data = picture if isinstance(picture, bytes) else picture.read()
        if not data:
            return Prepared(error="empty")
        image = middle_of_long(load_image(io.BytesIO(data), _at_least), _processor)
        pixels = _processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    except ImageError as error:
        return Prepared(error=str(error))
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return Prepared(digest, np.ascontiguousarray(pixels, np.uint8))
