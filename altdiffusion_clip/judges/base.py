"""The interfaces of judges."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Inputs = dict[str, np.ndarray]
"""A prepared picture without a batch dimension."""


class Preprocess(Protocol):
    """Prepares an RGB picture for a judge.

    It can be pickled for worker processes, and hashed and compared, so that judges can share a preparation.

    Attributes:
        side: the pixels of the shorter side that the judge sees; None if it sees all of them.
    """

    @property
    def side(self) -> int | None:
        """See the class."""

    def __call__(self, image: Image.Image) -> Inputs:
        """Prepares an RGB picture."""


class Judge(Protocol):
    """Says how well pictures fit texts.

    Attributes:
        name: to show.
        measure: what its scores are: "cosine", in [-1, 1], or "score", without a unit.
        device: that it computes on.
        dtype: that it computes in.
        preprocess: prepares pictures.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def measure(self) -> str:
        """See the class."""

    @property
    def preprocess(self) -> Preprocess:
        """See the class."""

    @property
    def device(self) -> torch.device:
        """See the class."""

    @property
    def dtype(self) -> torch.dtype:
        """See the class."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Any:
        """Changes its device and dtype."""

    def probability(self, scores: Tensor) -> Tensor | None:
        """The probability of each picture of one text, float32 (pictures,) in [0, 1]; None if its scores do not say."""

    def fingerprint(self) -> str:
        """A hash of everything that its scores depend on: weights, tokenizer, preparation."""


class DualJudge(Judge, Protocol):
    """A judge that embeds texts and pictures in one space. A score is a cosine.

    Attributes:
        dim: length of a vector.
        logit_scale: factor of cosines in a softmax or sigmoid: 1 / temperature.
    """

    @property
    def dim(self) -> int:
        """See the class."""

    @property
    def logit_scale(self) -> float:
        """See the class."""

    def read_at_length(self, long_text: str) -> None:
        """Chooses how to read texts with too many tokens, one of `dual.LONG_TEXT`.

        Raises:
            UserError: the judge does not support it.
        """

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the judge's device. A text that is cut is named in a warning."""

    def picture_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Unit vectors, float32 (pictures, dim), on the judge's device.

        Args:
            inputs: from `preprocess`, stacked, on the judge's device.
        """


class PairJudge(Judge, Protocol):
    """A judge that reads a text and a picture together."""

    def pair_scores(self, texts: Sequence[str], pictures: Sequence[Inputs]) -> Tensor:
        """Scores text i with picture i: float32 (pairs,), on the CPU. A number that is not finite is no score."""


def is_dual(judge: Judge) -> TypeGuard[DualJudge]:
    """Whether a judge has vectors."""
    return hasattr(judge, "picture_features")


def is_pair(judge: Judge) -> TypeGuard[PairJudge]:
    """Whether a judge scores pairs."""
    return not is_dual(judge)


Function = Callable[[Sequence[str], Sequence[Image.Image]], Any]
"""Takes texts and as many RGB pictures, and returns a number for each pair."""
