"""Reads, decodes and prepares pictures for judges, in workers that run alongside the encoding."""

import functools
import io
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from altdiffusion_clip.errors import one_line
from altdiffusion_clip.images import ImageError, ImageSource, load_image, pixels_of
from altdiffusion_clip.judges.base import Inputs, Preprocess
from altdiffusion_clip.judges.cache import VectorCache, key_of
from altdiffusion_clip.sources.pictures import Located, StoredImage
from altdiffusion_clip.sources.places import is_remote
from altdiffusion_clip.sources.retries import PassingImageError, Retries

CHUNK = 4
"""Pictures per chunk. It is small, because the first batch has to wait for the first chunks."""
DRAFT, DRAFT_LEAST = 1.5, 192
"""JPEGs are decoded to at least this multiple of the side that a judge sees, and at least this many pixels."""
BUDGET = 50_000_000
"""Pixels that a process decodes at once, at up to 20 bytes each. A larger picture is decoded alone."""
READERS = 16
"""Simultaneous requests for remote pictures."""


Picture = StoredImage | bytes | ImageSource
"""Encoded or decoded, in memory or to be read."""


@dataclass(frozen=True)
class Fetched:
    """A picture that was read ahead."""

    picture: Located
    data: bytes


class _Budget:
    """Limits the total pixels of pictures that are decoded at once."""

    def __init__(self, pixels: int) -> None:
        self._most, self._taken = pixels, 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Waits until there is room. A picture above the limit waits until it is alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_budget = _Budget(BUDGET)


def name_of_place(picture: Picture) -> str | None:
    """The place of a picture in files of vectors; None for one in memory."""
    if isinstance(picture, StoredImage):
        return picture.name
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else None


@dataclass(frozen=True)
class Prepared:
    """A picture prepared for judges, or its error.

    Attributes:
        key: of its encoded bytes and how they were read; empty for a picture that came decoded.
        inputs: one per preparation; empty if there is an error or the vectors are known.
        vectors: one per judge, float32 (dim,), if all were cached.
        error: one line.
        may_pass: the error may be temporary.
    """

    key: bytes = b""
    inputs: tuple[Inputs, ...] = ()
    vectors: tuple[np.ndarray, ...] = ()
    error: str = ""
    may_pass: bool = False


Item = Picture | Fetched | Prepared
"""The input of workers: a picture, one that was read ahead, or one that needs no work."""


@dataclass(frozen=True)
class Preparation:
    """How to prepare a picture for judges. It is small, because it is sent along with each chunk.

    Attributes:
        preprocesses: of the judges, without duplicates.
        exact: decode JPEGs at full size too.
        max_pixels: larger pictures are rejected; None for only Pillow's own limit.
        retries: of temporary errors.
        caches: of the judges' vectors; a picture with all vectors cached is not decoded. Empty unless all judges have
            vectors.
    """

    preprocesses: tuple[Preprocess, ...]
    exact: bool = False
    max_pixels: int | None = None
    retries: Retries = field(default_factory=Retries)
    caches: tuple[VectorCache, ...] = ()

    def __call__(self, pictures: Sequence[Item]) -> list[Prepared]:
        """Prepares pictures. An error affects only its own picture."""
        return [each if isinstance(each, Prepared) else self._prepare(each) for each in pictures]

    @functools.cached_property
    def at_least(self) -> int | None:
        """The least pixels of the shorter side that JPEGs are decoded to; None for full size."""
        sides = [preprocess.side for preprocess in self.preprocesses]
        if self.exact or not all(sides):
            return None
        return max(_least(side) for side in sides if side)

    def _prepare(self, picture: Picture | Fetched) -> Prepared:
        try:
            if isinstance(picture, bytes):
                return self._prepared(picture)
            if isinstance(picture, Located):
                picture = Fetched(picture, picture.read(self.retries))
            if isinstance(picture, Fetched):
                return self._fetched(picture)
            if isinstance(picture, StoredImage):
                return self._prepared(picture.read(self.retries))
            return Prepared(inputs=self._inputs_of(load_image(picture)))
        except PassingImageError as error:
            return Prepared(error=str(error), may_pass=True)
        except ImageError as error:
            return Prepared(error=str(error))
        except MemoryError:
            return Prepared(error="more memory is needed than there is", may_pass=True)
        except Exception as error:  # any error belongs to this picture
            return Prepared(error=f"cannot be prepared ({one_line(error)})")

    def fetch(self, picture: Located) -> Fetched | Prepared:
        """Reads a remote picture, or returns the error."""
        try:
            return Fetched(picture, picture.read(self.retries))
        except ImageError as error:
            return Prepared(error=str(error), may_pass=isinstance(error, PassingImageError))

    def _fetched(self, fetched: Fetched) -> Prepared:
        try:
            return self._prepared(fetched.data)
        except ImageError:
            # It may be incomplete. Asking for its size costs another request, so that is done only now.
            sized = fetched.picture.with_size()
            if sized.size is None or len(fetched.data) >= sized.size:
                raise
            return self._prepared(sized.read(self.retries))

    def _prepared(self, data: bytes) -> Prepared:
        if not data:
            raise ImageError("an empty file")
        # Drafts of different sizes give different vectors.
        key = key_of(b"image %d " % (self.at_least or 0), data)
        known = [cache.get([key]).get(key) for cache in self.caches]
        vectors = tuple(vector for vector in known if vector is not None)
        if known and len(vectors) == len(known):
            return Prepared(key, vectors=vectors)
        return Prepared(key, self._decoded(data))

    def _decoded(self, data: bytes) -> tuple[Inputs, ...]:
        pixels = pixels_of(data)
        if self.max_pixels is not None and pixels > self.max_pixels:
            raise ImageError(f"{pixels} pixels, where {self.max_pixels} are allowed")
        with _budget.take(pixels):
            return self._inputs_of(load_image(io.BytesIO(data), self.at_least))

    def _inputs_of(self, image: Image.Image) -> tuple[Inputs, ...]:
        return tuple(preprocess(self._reduced(image, preprocess.side)) for preprocess in self.preprocesses)

    def _reduced(self, image: Image.Image, side: int | None) -> Image.Image:
        # A tower sees little of a large picture, and scaling all of it takes ten times its memory.
        factor = 1 if self.exact or not side else min(image.size) // (2 * _least(side))
        return image.reduce(factor) if factor > 1 else image


def _least(side: int) -> int:
    return max(int(DRAFT * side), DRAFT_LEAST)


class Workers:
    """Workers that prepare pictures.

    Args:
        preparation: of each picture.
        count: processes; 0 for two threads, which is as fast on few cores, because Pillow releases the GIL to decode
            and scale.
    """

    def __init__(self, preparation: Preparation, count: int = 0) -> None:
        self.preparation = preparation
        self._ahead = 4 * max(count, 2)
        self._threads = ThreadPoolExecutor(count or 2, "pictures")
        self._readers = ThreadPoolExecutor(READERS, "readers")
        self._has_processes = count > 0
        self._processes: list[_Process] = []
        self._own = threading.local()  # one process per thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def prepare(self, pictures: Iterable[Picture | Prepared]) -> Iterator[tuple[int, Prepared]]:
        """Prepares pictures as they come, some chunks ahead. Yields each with its index, in order."""
        stream, place = self._read_ahead(iter(pictures)), 0
        run = self._in_process if self._has_processes else self.preparation
        waiting: deque[Future[list[Prepared]]] = deque()
        while True:
            while len(waiting) < self._ahead and (chunk := list(islice(stream, CHUNK))):
                waiting.append(self._threads.submit(run, chunk))
            if not waiting:
                return
            prepared = waiting.popleft().result()
            yield from enumerate(prepared, place)
            place += len(prepared)

    def _read_ahead(self, pictures: Iterator[Picture | Prepared]) -> Iterator[Item]:
        """The same pictures, with some remote ones read while others are prepared."""
        waiting: deque[Item | Future[Fetched | Prepared]] = deque()
        while True:
            while len(waiting) < READERS and (picture := next(pictures, None)) is not None:
                if isinstance(picture, Located) and is_remote(picture.url):
                    waiting.append(self._readers.submit(self.preparation.fetch, picture))
                else:
                    waiting.append(picture)
            if not waiting:
                return
            item = waiting.popleft()
            yield item.result() if isinstance(item, Future) else item

    def _in_process(self, chunk: Sequence[Item]) -> list[Prepared]:
        """Prepares a chunk in this thread's process. If that dies, tries once more in a new one."""
        try:
            return self._process()(self.preparation, chunk)
        except ProcessEndedError:
            return self._alone(chunk)

    def _alone(self, chunk: Sequence[Item]) -> list[Prepared]:
        """Prepares a chunk whose process has died. Bisects to find the picture that kills it."""
        try:
            return self._process()(self.preparation, chunk)
        except ProcessEndedError:
            if len(chunk) == 1:
                return [Prepared(error="the process that decoded it ended; it may need more memory than there is")]
        half = len(chunk) // 2
        return self._alone(chunk[:half]) + self._alone(chunk[half:])

    def _process(self) -> "_Process":
        process: _Process | None = getattr(self._own, "process", None)
        if process is None or not process.is_alive:
            process = self._own.process = _Process()
            self._processes.append(process)
        return process

    def close(self) -> None:
        """Ends the workers."""
        for threads in (self._readers, self._threads):
            threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()


class ProcessEndedError(Exception):
    """A process died before it returned its result."""


class _Process:
    """A process that prepares pictures, with its own pipe.

    (In a `ProcessPoolExecutor` all processes share one pipe for results. A process that is killed while writing leaves
    half a message there, and everyone waits for the other half forever.)
    """

    def __init__(self) -> None:
        context = _context()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe is closed when the process dies
        self.is_alive = True

    def __call__(self, preparation: Preparation, chunk: Sequence[Item]) -> list[Prepared]:
        """Prepares pictures.

        Raises:
            ProcessEndedError: the process died.
        """
        try:
            self._pipe.send((preparation, chunk))
            prepared: list[Prepared] = self._pipe.recv()
        except (EOFError, OSError):
            self.close()
            raise ProcessEndedError from None
        return prepared

    def close(self) -> None:
        """Ends the process."""
        self.is_alive = False
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.kill()


@functools.cache
def _context() -> Any:
    """How processes start: as copies of a process that has imported what they need and has no threads.

    (Copies of this process would inherit the locks of its threads. A new process takes seconds to import torch.)
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # In addition to what the calling program wants preloaded.
    wanted = getattr(multiprocessing.forkserver._forkserver, "_preload_modules", [])
    context.set_forkserver_preload([*wanted, __name__])
    return context


def _serve(pipe: Connection) -> None:
    """Prepares what comes through a pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    torch.set_num_threads(1)  # there is already a process per core
    with suppress(EOFError, OSError):
        while True:
            preparation, chunk = pipe.recv()
            pipe.send(preparation(chunk))


def default_workers(beside_gpu: bool, cores: int | None = None) -> int:
    """The default number of processes: all cores but two.

    At most eight if the tower computes on the same cores. A GPU needs all that they can deliver.

    Args:
        beside_gpu: the tower computes on a GPU.
        cores: number of cores; by default those that this process may use.
    """
    if cores is None:
        # Not those of the machine, because a container or a cluster job may have only a few.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores - 2 if beside_gpu else min(8, cores - 2))
