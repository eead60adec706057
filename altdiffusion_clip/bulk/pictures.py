"""Pictures read, decoded and cut to what a vision tower takes, by workers beside the one that encodes."""

import functools
import hashlib
import io
import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from altdiffusion_clip.errors import one_line
from altdiffusion_clip.images import ImageError, load_image, pixels_of
from altdiffusion_clip.long_pictures import middle_of_long
from altdiffusion_clip.sources.places import Located
from altdiffusion_clip.sources.retries import PassingImageError, Retries

CHUNK = 4
"""Pictures that a worker takes at a time: few, since the first batch of the tower waits for the first chunks."""
DRAFT, DRAFT_LEAST = 1.5, 192
"""JPEGs are decoded to no less than so many times the side that the tower sees, and so many pixels."""
LARGE = 16_000_000
"""Pixels of pictures that a process decodes one at a time."""

_large = threading.Lock()


@dataclass(frozen=True)
class Prepared:
    """A picture ready for the tower, or what is wrong with it.

    Attributes:
        digest: of its encoded bytes.
        pixels: uint8 (3, side, side); None if there is an error.
        error: one line.
        may_pass: the error may be gone another time.
    """

    digest: bytes = b""
    pixels: np.ndarray | None = None
    error: str = ""
    may_pass: bool = False


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes what a tower takes; small, since it goes along with each chunk.

    Attributes:
        processor: transformers' image processor as JSON.
        kind: its class.
        at_least: JPEGs are decoded to sides of so many pixels at least; None for their full size.
        max_pixels: pictures of more are refused; None for Pillow's own limit alone.
        retries: of faults that may pass.
    """

    processor: str
    kind: type[Any]
    at_least: int | None = None
    max_pixels: int | None = None
    retries: Retries = field(default_factory=Retries)

    def __call__(self, pictures: Sequence[Located | bytes]) -> list[Prepared]:
        """Prepares pictures. Whatever is wrong with one is said of that one."""
        return [self._prepare(picture) for picture in pictures]

    def _prepare(self, picture: Located | bytes) -> Prepared:
        try:
            if isinstance(picture, bytes):
                return self._prepared(picture)
            data = picture.read(self.retries)
            try:
                return self._prepared(data)
            except ImageError:
                # It may have come in part: to know its size costs one more request, so that is asked now alone.
                sized = picture.with_size()
                if sized.size is None or len(data) >= sized.size:
                    raise
                return self._prepared(sized.read(self.retries))
        except PassingImageError as error:
            return Prepared(error=str(error), may_pass=True)
        except ImageError as error:
            return Prepared(error=str(error))
        except MemoryError:
            return Prepared(error="more memory is needed than there is", may_pass=True)
        except Exception as error:  # it belongs to this picture, whatever it is
            return Prepared(error=f"cannot be prepared ({one_line(error)})")

    def _prepared(self, data: bytes) -> Prepared:
        if not data:
            raise ImageError("empty")
        return Prepared(hashlib.blake2b(data, digest_size=16).digest(), self._pixels_of(data))

    def _pixels_of(self, data: bytes) -> np.ndarray:
        pixels = pixels_of(data)
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise ImageError(f"{pixels} pixels, where {self.max_pixels} are allowed")
        if pixels > LARGE:
            with _large:
                return self._decoded(data)
        return self._decoded(data)

    def _decoded(self, data: bytes) -> np.ndarray:
        processor = _processor_of(self.kind, self.processor)  # type: ignore[arg-type]
        image = middle_of_long(load_image(io.BytesIO(data), self.at_least), processor)
        if self.at_least is not None:
            # A tower sees little of a large picture; scaling all of it costs ten times its memory.
            image = image.reduce(max(1, min(image.size) // (2 * self.at_least)))
        pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(pixels, np.uint8)


@functools.lru_cache(maxsize=8)
def _processor_of(kind: type[Any], settings: str) -> Any:
    return kind.from_dict(json.loads(settings))


class Workers:
    """Workers that prepare pictures.

    Args:
        image_processor: transformers', as the scorer has it.
        count: processes; 0 for two threads in this process, which is as fast on few cores, since Pillow decodes and
            scales without holding the interpreter.
        exact: decode pictures in full size.
        max_pixels: pictures of more are refused.
        retries: of faults that may pass.
    """

    def __init__(
        self,
        image_processor: Any,
        count: int = 0,
        exact: bool = False,
        max_pixels: int | None = None,
        retries: Retries | None = None,
    ) -> None:
        size = image_processor.size
        side = size.get("shortest_edge") or min(size.get("height", 0), size.get("width", 0))
        at_least = None if exact else max(int(DRAFT * side), DRAFT_LEAST)
        settings = json.dumps(image_processor.to_dict(), default=str)
        self._prepare = Preparation(settings, type(image_processor), at_least, max_pixels, retries or Retries())
        self._count, self._ahead = count, 4 * max(count, 2)
        self._executor = self._new_executor()

    def _new_executor(self) -> Executor:
        if not self._count:
            return ThreadPoolExecutor(2, "pictures")
        # Forked processes would inherit the threads' locks of torch.
        return ProcessPoolExecutor(self._count, multiprocessing.get_context("spawn"))

    def prepare(self, pictures: Iterable[Located | bytes]) -> Iterator[tuple[int, Prepared]]:
        """Prepares pictures as they come, some chunks ahead; gives the place of each with it, in order."""
        stream, place = iter(pictures), 0
        waiting: deque[tuple[list[Located | bytes], Executor, Future[list[Prepared]]]] = deque()
        while True:
            while len(waiting) < self._ahead and (chunk := list(islice(stream, CHUNK))):
                waiting.append((chunk, *self._submit(chunk)))
            if not waiting:
                return
            chunk, executor, future = waiting.popleft()
            try:
                prepared = future.result()
            except BrokenExecutor:
                prepared = self._alone(chunk, executor)
            yield from enumerate(prepared, place)
            place += len(chunk)

    def _submit(self, chunk: Sequence[Located | bytes]) -> tuple[Executor, Future[list[Prepared]]]:
        try:
            return self._executor, self._executor.submit(self._prepare, chunk)
        except BrokenExecutor:
            self._replace(self._executor)
            return self._executor, self._executor.submit(self._prepare, chunk)

    def _alone(self, chunk: Sequence[Located | bytes], broken: Executor) -> list[Prepared]:
        """A chunk once more, after a process has ended; the picture that ends it again is found by halving."""
        self._replace(broken)
        executor, future = self._submit(chunk)
        try:
            return future.result()
        except BrokenExecutor:
            if len(chunk) == 1:
                self._replace(executor)
                return [Prepared(error="the process that decoded it ended; it may need more memory than there is")]
        half = len(chunk) // 2
        return self._alone(chunk[:half], executor) + self._alone(chunk[half:], executor)

    def _replace(self, broken: Executor) -> None:
        if self._executor is broken:
            broken.shutdown(wait=False, cancel_futures=True)
            self._executor = self._new_executor()

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
