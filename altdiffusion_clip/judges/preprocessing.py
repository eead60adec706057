"""Prepares pictures for judges. Each preparation can be pickled for worker processes, and compared."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.judges.base import Inputs
from altdiffusion_clip.long_pictures import middle_of_long

PIXELS = "pixel_values"


@dataclass(frozen=True)
class TransformersPreprocess:
    """A transformers image processor.

    If it only produces pixels, they stay bytes, which are a quarter as large to copy. `Normalise` does the rest on the
    device.

    Args:
        kind: class of the processor.
        settings: its settings as JSON.
    """

    kind: type[Any]
    settings: str

    @classmethod
    def of(cls, processor: Any) -> "TransformersPreprocess":
        """The preparation of a processor."""
        return cls(type(processor), json.dumps(processor.to_dict(), sort_keys=True, default=str))

    @property
    def side(self) -> int | None:
        """The side of its square output; None for patches or other shapes."""
        size = getattr(self.processor, "size", None) or {}
        return size.get("shortest_edge") or min(size.get("height", 0), size.get("width", 0)) or None

    @property
    def processor(self) -> Any:
        """The processor, created once per process."""
        return _processor_of(self.kind, self.settings)  # type: ignore[arg-type]

    @property
    def gives_bytes(self) -> bool:
        """Whether its output still has to be scaled and normalised."""
        processor = self.processor
        return self.side is not None and processor.do_rescale and processor.do_normalize

    def __call__(self, image: Image.Image) -> Inputs:
        """Prepares an RGB picture."""
        processor = self.processor
        image = middle_of_long(image, processor)
        if self.gives_bytes:
            given = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
            return {PIXELS: np.ascontiguousarray(given[PIXELS][0], np.uint8)}
        given = processor(image, return_tensors="np")
        return {key: np.asarray(value)[0] for key, value in given.items()}


@functools.lru_cache(maxsize=16)
def _processor_of(kind: type[Any], settings: str) -> Any:
    return kind.from_dict(json.loads(settings))


@dataclass(frozen=True)
class AsItIs:
    """A picture at full size, for judges that prepare pictures themselves."""

    @property
    def side(self) -> None:
        """None, because all of it is seen."""

    def __call__(self, image: Image.Image) -> Inputs:
        """The pixels, uint8 (height, width, 3)."""
        return {PIXELS: np.asarray(image)}


def stacked(inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """Stacks prepared pictures to a batch."""
    return {key: torch.from_numpy(np.stack([each[key] for each in inputs])) for key in inputs[0]}


class Normalise:
    """The arithmetic that `TransformersPreprocess` leaves for the device.

    Args:
        preprocess: the preparation of the pictures.
    """

    def __init__(self, preprocess: TransformersPreprocess) -> None:
        self._is_needed = preprocess.gives_bytes
        processor = preprocess.processor
        if self._is_needed:
            self._factor = float(processor.rescale_factor)
            self._mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1)
            self._std = torch.tensor(processor.image_std).view(1, 3, 1, 1)

    def __call__(self, inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """The input of a tower, in its dtype."""
        if self._is_needed:
            pixels = inputs[PIXELS]
            if self._mean.device != pixels.device:
                self._mean, self._std = self._mean.to(pixels.device), self._std.to(pixels.device)
            inputs = {PIXELS: pixels.float().mul_(self._factor).sub_(self._mean).div_(self._std)}
        return {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
