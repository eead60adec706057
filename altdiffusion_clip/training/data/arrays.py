"""Arrays on disk that are computed once and then memory-mapped, with rows of equal or different lengths."""

import json
import logging
import shutil
import time
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_folder, lock_of, write_bytes
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.training.machines import crew_of, is_main

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 10.0
OFFSETS_AT_ONCE = 65_536


def fill_rows(
    path: Path,
    count: int,
    row_shape: Sequence[int],
    dtype: str,
    compute: Callable[..., Tensor],
    *,
    read: Callable[[int, int], Any] | None = None,
    workers: int = 0,
    chunk: int = 256,
    accelerator: Accelerator | None = None,
    description: str = "computing",
    is_shared: bool = False,
) -> np.memmap:
    """Computes rows in chunks into a file, unless they exist already.

    A killed process loses at most ten seconds, because flushed chunks are marked and not computed again. Several
    processes divide the chunks, and share the folder.

    Args:
        path: of the file.
        count: number of rows.
        row_shape: of one row.
        dtype: numpy's name.
        compute: returns the rows from start to stop, or the rows for the output of `read`.
        read: loads what the rows from start to stop are computed from.
        workers: processes that read ahead; 0 for none.
        chunk: rows per chunk.
        accelerator: of the run, if there are several processes.
        description: of the progress bar.
        is_shared: other runs may need the same file. One of them computes it, and the others wait.

    Returns:
        The rows, read-only, (count, *row_shape).
    """
    shape = (count, *row_shape)
    with alone(path, path.exists, is_shared, accelerator):
        if not path.exists():
            _fill(path, shape, dtype, compute, read, workers, chunk, accelerator, description)
    if not count:
        return np.empty(shape, dtype)  # type: ignore[return-value]
    return np.memmap(path, dtype, "r", shape=shape)


def _fill(
    path: Path,
    shape: tuple[int, ...],
    dtype: str,
    compute: Callable[..., Tensor],
    read: Callable[[int, int], Any] | None,
    workers: int,
    chunk: int,
    accelerator: Accelerator | None,
    description: str,
) -> None:
    crew = crew_of(accelerator)
    partial, marks = path.with_suffix(".partial"), path.with_suffix(".done")
    count = shape[0]
    chunks = -(-count // chunk)
    if crew.is_first:
        path.parent.mkdir(parents=True, exist_ok=True)
        _allocate(marks, chunks)
        _allocate(partial, max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize))
    crew.wait()
    done = np.memmap(marks, np.uint8, "r+", shape=(max(1, chunks),))
    rows = np.memmap(partial, dtype, "r+", shape=shape) if count else np.empty(shape, dtype)
    mine = [i for i in range(crew.rank, chunks, crew.size) if not done[i]]
    pending: list[int] = []
    flushed = time.monotonic()
    bounds = [(number * chunk, min(count, (number + 1) * chunk)) for number in range(chunks)]
    batches = read_ahead(_Reading(read, bounds), mine, workers)
    bar = tqdm(mine, desc=description, mininterval=5.0, disable=not is_main(accelerator))
    for number, batch in zip(bar, batches, strict=True):
        start, stop = bounds[number]
        rows[start:stop] = (compute(start, stop) if read is None else compute(batch)).cpu().numpy()
        pending.append(number)
        if time.monotonic() - flushed > FLUSH_SECONDS or number == mine[-1]:
            if isinstance(rows, np.memmap):
                rows.flush()
            done[pending] = 1
            done.flush()
            pending, flushed = [], time.monotonic()
    crew.wait()
    if crew.is_first:
        partial.replace(path)
        marks.unlink(missing_ok=True)
    crew.wait()


def read_ahead(dataset: Dataset[Any], order: Sequence[int], workers: int, pin_memory: bool = False) -> Generator[Any]:
    """Yields items of a dataset in a given order, read ahead by worker processes if there are any.

    Raises:
        UserError: a picture cannot be read. The message is one line, whichever process read it.
    """
    ahead: dict[str, Any] = {}
    if workers:
        # Forked, because a dataset holds memory-mapped arrays and other objects of a recipe.
        ahead = {"num_workers": workers, "prefetch_factor": 4, "multiprocessing_context": "fork"}
    batches = iter(DataLoader(_Told(dataset), None, sampler=order, pin_memory=pin_memory, **ahead))
    try:
        for batch in batches:
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch
    finally:
        # Otherwise, after an error, torch leaves this to the garbage collector, which waits five seconds for each
        # worker.
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]


class _Told(Dataset[Any]):
    """A dataset that reports unreadable pictures in one line, because workers would give tracebacks."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, place: int) -> Any:
        try:
            return self._dataset[place]
        except ImageError as error:
            return f"a picture {error}; give the same command again to continue"


class _Reading(Dataset[Any]):
    """The inputs of the chunks of `fill_rows`."""

    def __init__(self, read: Callable[[int, int], Any] | None, bounds: list[tuple[int, int]]) -> None:
        self._read, self._bounds = read, bounds

    def __getitem__(self, number: int) -> Any:
        return self._read(*self._bounds[number]) if self._read else number


class Ragged:
    """Rows of different lengths, end to end in one memory-mapped file.

    Args:
        folder: written by `RaggedWriter`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RaggedWriter(Path(folder) / "a", "int32") as writer:
        ...         writer.add([5, 6, 7])
        ...         writer.add([8])
        ...     rows = Ragged(Path(folder) / "a")
        ...     len(rows), rows[0].tolist(), rows.lengths.tolist()
        (2, [5, 6, 7], [3, 1])
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self._width = meta["width"]
        self._offsets = np.memmap(folder / "offsets.bin", np.int64, "r")
        shape = (int(self._offsets[-1]), self._width) if self._width else (int(self._offsets[-1]),)
        self._values: Any = np.empty(shape, meta["dtype"])
        if self._offsets[-1]:
            self._values = np.memmap(folder / "values.bin", meta["dtype"], "r", shape=shape)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of all rows, int64 (rows,). Computed on each call."""
        return np.diff(self._offsets)

    def lengths_of(self, rows: Tensor) -> Tensor:
        """The lengths of some rows, int64 (rows,)."""
        places = rows.numpy()
        return torch.from_numpy(self._offsets[places + 1] - self._offsets[places])

    def __getitem__(self, row: int) -> np.ndarray:
        return self._values[self._offsets[row] : self._offsets[row + 1]]

    def text(self, row: int) -> str:
        """A row of bytes, decoded."""
        return bytes(self[row]).decode("utf-8")

    def padded(self, rows: Sequence[int], value: float = 0) -> tuple[Tensor, Tensor]:
        """Some rows padded on the right to the longest, (rows, longest[, width]), and their int64 mask."""
        return _padded([self[row] for row in rows], value)


class RaggedParts:
    """Several `Ragged` as one.

    Args:
        parts: in order; all but the last have as many rows as the first.
    """

    def __init__(self, parts: Sequence[Ragged]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, row: int) -> np.ndarray:
        part, place = divmod(row, len(self._parts[0]))
        return self._parts[part][place]

    def padded(self, rows: Sequence[int], value: float = 0) -> tuple[Tensor, Tensor]:
        """See `Ragged.padded`."""
        return _padded([self[row] for row in rows], value)


def _padded(rows: Sequence[np.ndarray], value: float) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    longest = int(lengths.max())
    padded = np.full((len(rows), longest, *rows[0].shape[1:]), value, rows[0].dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded), (torch.arange(longest)[None, :] < lengths[:, None]).long()


class RaggedWriter:
    """Writes rows of different lengths one after another. Nothing is kept in memory.

    Args:
        folder: to write. It is not atomic by itself.
        dtype: numpy's name.
        width: of each item in a row; 0 for plain numbers.
    """

    def __init__(self, folder: Path, dtype: str, width: int = 0) -> None:
        folder.mkdir(parents=True)
        self._folder, self._dtype, self._width = folder, dtype, width
        self._offsets, self._count, self._end = array("q", [0]), 0, 0

    def add(self, row: Iterable[Any]) -> None:
        """Appends a row: numbers, or (length, width)."""
        values = np.ascontiguousarray(row, dtype=self._dtype)
        self._values.write(values.tobytes())
        self._count, self._end = self._count + 1, self._end + len(values)
        self._offsets.append(self._end)
        if len(self._offsets) == OFFSETS_AT_ONCE:
            self._flush()

    def add_text(self, text: str) -> None:
        """Appends a text as a row of bytes."""
        self.add(np.frombuffer(text.encode("utf-8"), np.uint8))

    def __len__(self) -> int:
        return self._count

    def _flush(self) -> None:
        self._offsets.tofile(self._ends)
        self._offsets = array("q")

    def __enter__(self) -> Self:
        self._values, self._ends = ((self._folder / name).open("wb") for name in ("values.bin", "offsets.bin"))
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._values.close()
        self._ends.close()
        if error[0] is None:
            meta = {"dtype": self._dtype, "width": self._width}
            (self._folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def prepared(
    folder: Path,
    made_from: dict[str, Any],
    prepare: Callable[[Path], None],
    accelerator: Accelerator | None = None,
    cache: Path | None = None,
) -> Path:
    """Returns a folder of arrays. It is prepared again, completely or not at all, unless it was made from the same
    inputs.

    Args:
        folder: of the arrays.
        made_from: what they depend on; must be serialisable as JSON.
        prepare: writes them into a given folder.
        accelerator: of the run. One process for each disk prepares.
        cache: a folder that runs share. The arrays are there, named by a digest of their inputs, and `folder` only gets
            their description.

    Returns:
        The folder of the arrays.
    """
    stamp = json.dumps(made_from, sort_keys=True)
    description = folder
    if cache is not None:
        folder = cache / blake2b(stamp.encode(), digest_size=8).hexdigest()
    made = folder / "made_from.json"

    def is_made() -> bool:
        return made.is_file() and made.read_text(encoding="utf-8") == stamp

    crew = crew_of(accelerator)
    if crew.is_first:
        with alone(folder, is_made, cache is not None):
            if not is_made():
                if folder.exists():
                    shutil.rmtree(folder)
                with atomic_folder(folder) as temporary:
                    prepare(temporary)
                    (temporary / "made_from.json").write_text(stamp, encoding="utf-8")
        if cache is not None:
            for described in folder.glob("*.json"):
                write_bytes(description / described.name, described.read_bytes())
    crew.wait()
    return folder


def path_for(path: Path, model: nn.Module, is_shared: bool) -> Path:
    """The path of what a model computes. If runs with other models share it, its name has a digest of the weights."""
    if not is_shared:
        return path
    # An autoencoder's latents are scaled by a setting, not by a weight.
    scale = getattr(getattr(model, "config", None), "scaling_factor", 1.0)
    digest = blake2b(str(scale).encode(), digest_size=8)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return path.with_stem(f"{path.stem}-{digest.hexdigest()}")


@contextmanager
def alone(
    path: Path, is_done: Callable[[], bool], is_shared: bool, accelerator: Accelerator | None = None
) -> Iterator[None]:
    """Lets one run at a time make a file or folder that runs share. The others wait until it is done.

    Args:
        path: of the file or folder.
        is_done: whether it is complete.
        is_shared: whether other runs may need it.
        accelerator: of the run. All its processes enter together.
    """
    crew, lock = crew_of(accelerator), None
    if is_shared:
        if crew.is_first and not is_done():
            lock = _wait_for_others(path)
        crew.wait()  # so that all processes find the same
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _wait_for_others(path: Path) -> Any:
    lock = path.with_name(f"{path.name}.lock")
    try:
        return lock_of(lock, "taken")
    except UserError as error:
        if str(error) != "taken":
            raise
    logger.warning("another run is making %s; this one waits for it", path)
    return lock_of(lock, "", timeout=-1)


def _allocate(path: Path, size: int) -> None:
    """Creates a file of zeros unless it has the right size already. Fails if the disk is too small."""
    if path.exists() and path.stat().st_size == size:
        return
    # Writing to a hole on a full disk would kill the process without a message.
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(f"{path.parent} has too little room: {size / 1e9:.2f} GB are needed")
    with path.open("wb") as file:
        file.truncate(size)
