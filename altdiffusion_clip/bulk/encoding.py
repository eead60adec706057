"""A scorer's two towers, as they are run over whole data sets."""

import copy
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.prompts.windows import tokenize
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
