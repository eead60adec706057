"""Runs judges over many texts and pictures, as fast as the device allows."""

import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.base import DualJudge, Inputs, Judge, Preprocess, is_dual, is_pair
from altdiffusion_clip.judges.cache import VectorCache, key_of
from altdiffusion_clip.judges.embedding_files import Embeddings
from altdiffusion_clip.judges.ensembles import Panel
from altdiffusion_clip.judges.pictures import Picture, Preparation, Prepared, Workers, name_of_place
from altdiffusion_clip.judges.preprocessing import stacked
from altdiffusion_clip.precision import is_slow
from altdiffusion_clip.prompts.normalising import without_surrogates
from altdiffusion_clip.sources.retries import Retries

logger = logging.getLogger(__name__)
TEXTS_AT_ONCE = 256
PICTURES_ON_CPU = 8
"""Pictures at a time. For ViT-L/14 in bfloat16, 8 were a fifth faster than 32, whose activations exceed the caches."""
BATCHES_AHEAD = 2
"""Batches queued for each device, so that it never waits for the next one."""


@dataclass
class _Known:
    """Vectors from files, float32 (dim,) each, by picture name and by text."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, np.ndarray] = field(default_factory=dict)


class Encoder:
    """Runs a judge with vectors over many texts and pictures.

    Args:
        judge: with its final dtype.
        batch_size: pictures at a time; halved if they do not fit in the device's memory.
        cache: makes a cache from a judge's fingerprint; by default nothing is cached.
    """

    def __init__(
        self, judge: DualJudge, batch_size: int = 32, cache: Callable[[str], VectorCache] | None = None
    ) -> None:
        self.judge, self.batch_size = judge, batch_size
        self.cache = cache(self.fingerprint) if cache else VectorCache(None, "")
        self._known = _Known()
        self._copies = torch.cuda.Stream(judge.device) if judge.device.type == "cuda" else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """The judge's fingerprint, which takes a while to compute."""
        return self.judge.fingerprint()

    def take(self, embeddings: Embeddings) -> bool:
        """Takes existing vectors if this judge made them. Returns whether it did."""
        if embeddings.fingerprint != self.fingerprint:
            return False
        self._known.pictures.update(zip(embeddings.images, embeddings.img_embedding, strict=True))
        self._known.texts.update(zip(embeddings.texts, embeddings.text_embedding, strict=True))
        return True

    def known_picture(self, name: str) -> np.ndarray | None:
        """The vector of a picture, if it was taken from a file."""
        return self._known.pictures.get(name)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the CPU. Equal texts are encoded once, sorted by length."""
        texts = [without_surrogates(text) for text in texts]
        distinct = sorted(dict.fromkeys(texts), key=len)
        keys = [key_of(b"text ", text.encode()) for text in distinct]
        known = {key: torch.from_numpy(vector.copy()) for key, vector in self.cache.get(keys).items()}
        taken = self._known.texts
        known |= {k: torch.from_numpy(taken[text]) for k, text in zip(keys, distinct, strict=True) if text in taken}
        new = [(key, text) for key, text in zip(keys, distinct, strict=True) if key not in known]
        for start in range(0, len(new), TEXTS_AT_ONCE):
            part = new[start : start + TEXTS_AT_ONCE]
            vectors = self.judge.text_features([text for _, text in part]).cpu()
            known.update(zip((key for key, _ in part), vectors, strict=True))
            self.cache.put([key for key, _ in part], vectors.numpy())
        of_text = dict(zip(distinct, keys, strict=True))
        return torch.stack([known[of_text[text]] for text in texts]) if texts else torch.empty(0, self.judge.dim)

    def cosines(self, texts: Sequence[str], vectors: Tensor) -> Tensor:
        """The cosine of text i with vector i, float32 (texts,). For a text read in parts, that of the best part.

        Args:
            texts: one per picture.
            vectors: of the pictures, float32 (texts, dim).
        """
        if not self._reads_in_parts:
            return torch.linalg.vecdot(self.texts(texts), vectors)
        parts = self._parts(texts)
        return torch.stack([(parts[text] @ vector).max() for text, vector in zip(texts, vectors, strict=True)])

    def every_cosine(self, texts: Sequence[str], vectors: Tensor) -> Tensor:
        """The cosine of every text with every picture, float32 (texts, pictures)."""
        if not self._reads_in_parts:
            return self.texts(texts) @ vectors.T
        parts = self._parts(texts)
        return torch.stack([(parts[text] @ vectors.T).amax(0) for text in texts])

    @property
    def _reads_in_parts(self) -> bool:
        return getattr(self.judge, "long_text", "") == "window-max"

    def _parts(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The vectors of each text's parts, float32 (parts, dim)."""
        windows: Callable[[str], list[str]] = self.judge.windows  # type: ignore[attr-defined]
        parts = {text: windows(text) for text in dict.fromkeys(texts)}
        said = self.texts([part for each in parts.values() for part in each])
        return dict(zip(parts, said.split([len(each) for each in parts.values()]), strict=True))

    def pictures(self, inputs: Sequence[Inputs]) -> Tensor:
        """Unit vectors of prepared pictures, float32 (pictures, dim), on the CPU."""
        return self.begin(inputs)()

    def begin(self, inputs: Sequence[Inputs]) -> Callable[[], Tensor]:
        """Starts what `pictures` does. Returns a function that waits for the vectors.

        A GPU works on it while the next batch is pinned, copied and started.
        """
        try:
            vectors = self.judge.picture_features(self._on_device(stacked(inputs)))
        except torch.OutOfMemoryError:
            if len(inputs) == 1:
                raise
        else:
            return _copied(vectors)
        # Not inside the except block, because the error keeps tensors alive.
        torch.cuda.empty_cache()
        size = self.batch_size = max(1, len(inputs) // 2)
        logger.warning("batches of %d pictures do not fit; going on with %d", len(inputs), size)
        parts = [self.begin(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        return lambda: torch.cat([part() for part in parts])

    def _on_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        device = self.judge.device
        if self._copies is None:
            return {key: value.to(device) for key, value in inputs.items()}
        # On a separate stream, so that they are copied while the previous batch is computed.
        with torch.cuda.stream(self._copies):
            copied = {key: value.pin_memory().to(device, non_blocking=True) for key, value in inputs.items()}
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(self._copies)
        for value in copied.values():
            value.record_stream(computing)
        return copied


def _copied(vectors: Tensor) -> Callable[[], Tensor]:
    """Starts copying vectors to the CPU. Returns a function that waits for them."""
    if vectors.device.type != "cuda":
        return vectors.cpu
    # Into pinned memory, so that this returns at once. The event says when they have arrived.
    on_cpu = vectors.to("cpu", non_blocking=True)
    done = torch.cuda.current_stream(vectors.device).record_event()

    def wait() -> Tensor:
        done.synchronize()
        return on_cpu

    return wait


class Bench:
    """Runs a panel of judges on one device.

    Args:
        panel: of the judges.
        batch_size: pictures at a time.
        cache: makes a cache from a judge's fingerprint; by default nothing is cached.
    """

    def __init__(self, panel: Panel, batch_size: int = 32, cache: Callable[[str], VectorCache] | None = None) -> None:
        self.panel = panel
        self.encoders = {
            place: Encoder(judge, batch_size, cache) for place, judge in enumerate(panel.members) if is_dual(judge)
        }
        self.preprocesses: tuple[Preprocess, ...] = tuple(dict.fromkeys(judge.preprocess for judge in panel.members))
        self._pair_batch_size = batch_size

    @classmethod
    def of(cls, judge: DualJudge, batch_size: int = 32, cache: Callable[[str], VectorCache] | None = None) -> "Bench":
        """The encoder of the only judge, which has vectors."""
        return cls(Panel([judge]), batch_size, cache)

    @property
    def encoder(self) -> Encoder:
        """The encoder of a bench with one judge that has vectors."""
        (encoder,) = self.encoders.values()
        return encoder

    def take(self, file: Path, embeddings: Embeddings) -> None:
        """Takes existing vectors from a file.

        Raises:
            UserError: none of these judges made them.
        """
        if not sum(encoder.take(embeddings) for encoder in self.encoders.values()):
            names = ", ".join(judge.name for judge in self.panel.members)
            raise UserError(f"{file} has vectors of another judge than {names}, or does not say whose they are")

    def known_picture(self, picture: Picture) -> Picture | Prepared:
        """The picture, or its vectors if they are known for all judges."""
        name = name_of_place(picture)
        if not self.is_dual or name is None:
            return picture
        vectors = [encoder.known_picture(name) for encoder in self.encoders.values()]
        known = tuple(vector for vector in vectors if vector is not None)
        return Prepared(b"taken " + name.encode(), vectors=known) if len(known) == len(vectors) else picture

    @property
    def batch_size(self) -> int:
        """Pictures at a time that fit in the device's memory."""
        return min((encoder.batch_size for encoder in self.encoders.values()), default=self._pair_batch_size)

    @property
    def is_dual(self) -> bool:
        """Whether all judges have vectors."""
        return len(self.encoders) == len(self.panel.members)

    def preparation(
        self, exact: bool = False, max_pixels: int | None = None, retries: Retries | None = None
    ) -> Preparation:
        """How pictures are prepared for these judges."""
        caches = tuple(encoder.cache for encoder in self.encoders.values())
        known = caches if self.is_dual and all(cache.is_open for cache in caches) else ()
        return Preparation(self.preprocesses, exact, max_pixels, retries or Retries(), known)

    def begin_vectors(self, inputs: Sequence[tuple[Inputs, ...]]) -> list[Callable[[], Tensor]]:
        """Starts encoding prepared pictures with each judge that has vectors."""
        return [encoder.begin(self._of(encoder.judge, inputs)) for encoder in self.encoders.values()]

    def pair_scores(self, texts: Sequence[str], inputs: Sequence[tuple[Inputs, ...]]) -> dict[int, Tensor]:
        """The scores of pairs, by the indices of the judges that score pairs."""
        return {
            place: judge.pair_scores(texts, self._of(judge, inputs)).cpu().float()
            for place, judge in enumerate(self.panel.members)
            if is_pair(judge)
        }

    def _of(self, judge: Judge, inputs: Sequence[tuple[Inputs, ...]]) -> list[Inputs]:
        place = self.preprocesses.index(judge.preprocess)
        return [each[place] for each in inputs]


@dataclass
class Seen:
    """The results of judges for pictures.

    Attributes:
        keys: of the pictures that could be read, by index.
        wrong: the errors of the others, by index.
        vectors: by the index of the judge and the key, float32 (dim,) each.
        pairs: by the index of a judge that scores pairs: scores by index of the picture.
    """

    keys: dict[int, bytes] = field(default_factory=dict)
    wrong: dict[int, Prepared] = field(default_factory=dict)
    vectors: dict[int, dict[bytes, Tensor]] = field(default_factory=dict)
    pairs: dict[int, dict[int, float]] = field(default_factory=dict)


def look_at(
    pictures: Iterable[Picture],
    benches: Sequence[Bench],
    workers: Workers,
    text_of: Callable[[int], str] | None = None,
    progress: Callable[[int], object] = lambda pictures: None,
) -> Seen:
    """Encodes pictures with judges as they come. Equal pictures are encoded once.

    Args:
        pictures: any number; their contents are freed once they are decoded.
        benches: the same panel, on each device.
        workers: that prepare pictures for it.
        text_of: gives the text for the index of a picture, for judges that score pairs.
        progress: called with the number of prepared pictures.
    """
    seen = Seen(
        vectors={place: {} for place in benches[0].encoders},
        pairs={place: {} for place, judge in enumerate(benches[0].panel.members) if is_pair(judge)},
    )
    begun: set[bytes] = set()
    batch: dict[bytes, tuple[Inputs, ...]] = {}
    pair_batch: dict[int, tuple[Inputs, ...]] = {}
    running: deque[tuple[Any, Future[Any]]] = deque()
    with ExitStack() as stack:
        # One thread per device starts one batch after another.
        threads = [stack.enter_context(ThreadPoolExecutor(1, "device")) for _ in benches]
        turns = itertools.cycle(zip(benches, threads, strict=True))

        def start() -> None:
            finish(BATCHES_AHEAD * len(benches) - 1)
            bench, thread = next(turns)
            if batch:
                running.append((list(batch), thread.submit(bench.begin_vectors, list(batch.values()))))
                batch.clear()
            if pair_batch:
                assert text_of is not None
                texts = [text_of(place) for place in pair_batch]
                running.append((list(pair_batch), thread.submit(bench.pair_scores, texts, list(pair_batch.values()))))
                pair_batch.clear()

        def finish(most: int) -> None:
            while len(running) > most:
                names, done = running.popleft()
                result = done.result()
                if isinstance(result, dict):
                    for judge, scores in result.items():
                        seen.pairs[judge].update(zip(names, scores.tolist(), strict=True))
                    continue
                for (judge, encoder), waiting in zip(benches[0].encoders.items(), result, strict=True):
                    vectors = waiting()
                    seen.vectors[judge].update(zip(names, vectors, strict=True))
                    # A picture that came decoded has no bytes for a key.
                    kept = [at for at, name in enumerate(names) if not name.startswith(b"place ")]
                    encoder.cache.put([names[at] for at in kept], vectors[kept].numpy())

        for place, prepared in workers.prepare(map(benches[0].known_picture, pictures)):
            progress(1)
            if prepared.error:
                seen.wrong[place] = prepared
                continue
            seen.keys[place] = key = prepared.key or b"place %d" % place
            if seen.pairs:
                pair_batch[place] = prepared.inputs
            if seen.vectors and key not in begun:
                begun.add(key)
                if prepared.vectors:
                    for judge, vector in zip(seen.vectors, prepared.vectors, strict=True):
                        seen.vectors[judge][key] = torch.from_numpy(vector.copy())
                else:
                    batch[key] = prepared.inputs
            if max(len(batch), len(pair_batch)) >= min(bench.batch_size for bench in benches):
                start()
        start()
        finish(0)
    return seen


def fastest_dtype(judge: Judge, batch_size: int = 8, rounds: int = 3) -> torch.dtype:
    """Measures in which dtype a judge encodes pictures fastest on this machine: float32 or half precision.

    The half type is bfloat16 on CPUs and float16 on GPUs. Because it rounds, it must be at least a fifth faster.

    Args:
        judge: in float32; it is not changed.
        batch_size: pictures at a time.
        rounds: the fastest one counts.
    """
    modules: Mapping[str, nn.Module] = getattr(judge, "modules", {})
    if not is_dual(judge) or not modules:
        return judge.dtype
    half = torch.float16 if judge.device.type == "cuda" else torch.bfloat16
    if is_slow(half, judge.device.type):
        return torch.float32
    inputs = {key: value.to(judge.device) for key, value in stacked([_blank(judge)] * batch_size).items()}
    run = functools.partial(judge.picture_features, inputs)
    seconds = {torch.float32: min(_timed(run, judge.device) for _ in range(rounds))}
    with _in_dtype(modules.values(), half):
        seconds[half] = min(_timed(run, judge.device) for _ in range(rounds))
    return half if seconds[half] * 1.2 < seconds[torch.float32] else torch.float32


def fastest_batch_size(judge: Judge, start: int = 32, most: int = 512, gain: float = 1.05) -> int:
    """Measures the fastest batch size on a GPU; on other devices `PICTURES_ON_CPU`.

    It is doubled until that gains less than 5%, or until memory is full.
    """
    if judge.device.type != "cuda" or not is_dual(judge):
        return PICTURES_ON_CPU
    size, best = start, 0.0
    while size <= most:
        try:
            inputs = {key: value.to(judge.device) for key, value in stacked([_blank(judge)] * size).items()}
            seconds = min(_timed(functools.partial(judge.picture_features, inputs), judge.device) for _ in range(3))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if size / seconds < gain * best:
            break
        size, best = 2 * size, size / seconds
    return max(start, size // 2)


def _blank(judge: Judge) -> Inputs:
    side = judge.preprocess.side or 224
    return judge.preprocess(Image.new("RGB", (side, side)))


@contextmanager
def _in_dtype(modules: Iterable[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Lets modules compute in another dtype for a block. Afterwards they have their original weights back."""
    kept = [(p, p.data) for module in modules for p in itertools.chain(module.parameters(), module.buffers())]
    try:
        for parameter, data in kept:
            if data.is_floating_point():
                parameter.data = data.to(dtype)
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


@torch.no_grad()
def _timed(run: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
