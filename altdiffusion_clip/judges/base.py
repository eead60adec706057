"""What a judge is."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

Inputs = dict[str, np.ndarray]
"""A picture as a judge takes it, on its own: without the dimension of a batch."""


class Preprocess(Protocol):
    """Makes of an RGB picture what a judge takes.

    It goes to worker processes, so it can be pickled; it can be hashed and compared, so that judges of one preparation
    share it.

    Attributes:
        side: pixels of a picture's shorter side that the judge sees; None if it sees all of them.
    """

    @property
    def side(self) -> int | None:
        """See the class."""

    def __call__(self, image: Image.Image) -> Inputs:
        """Prepares an RGB picture."""


class Judge(Protocol):
    """Says how well pictures fit texts.

    Attributes:
        name: to be shown.
        measure: what its scores are: "cosine", in [-1, 1], or "score", of no unit.
        device: where it computes.
        dtype: of its arithmetic.
        preprocess: of pictures.
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
        """Moves it, and changes its arithmetic."""

    def probability(self, scores: Tensor) -> Tensor | None:
        """Of each picture of one text, float32 (pictures,) in [0, 1]; None if its scores say nothing of that."""

    def fingerprint(self) -> str:
        """Of everything that its scores depend on: weights, tokenizer, preparation."""


class DualJudge(Judge, Protocol):
    """A judge that gives texts and pictures vectors in one space; a score is their cosine.

    Attributes:
        dim: numbers in a vector.
        logit_scale: what cosines are multiplied with before a softmax or sigmoid: 1 / temperature.
    """

    @property
    def dim(self) -> int:
        """See the class."""

    @property
    def logit_scale(self) -> float:
        """See the class."""

    def read_at_length(self, long_text: str) -> None:
        """Chooses what is done with texts of more tokens than it reads, one of `dual.LONG_TEXT`.

        Raises:
            UserError: it cannot be done.
        """

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (texts, dim), on the judge's device. A text that is cut is named in a warning."""

    def picture_features(self, inputs: dict[str, Tensor]) -> Tensor:
        """Unit vectors, float32 (pictures, dim), on the judge's device.

        Args:
            inputs: what `preprocess` gives, stacked, on the judge's device.
        """


class PairJudge(Judge, Protocol):
    """A judge that looks at a text and a picture together."""

    def pair_scores(self, texts: Sequence[str], pictures: Sequence[Inputs]) -> Tensor:
        """Scores of text i with picture i, float32 (pairs,), on the CPU; what is not finite is no score."""


def is_dual(judge: Judge) -> TypeGuard[DualJudge]:
    """Whether a judge gives vectors."""
    return hasattr(judge, "picture_features")


def is_pair(judge: Judge) -> TypeGuard[PairJudge]:
    """Whether a judge looks at pairs."""
    return not is_dual(judge)


Function = Callable[[Sequence[str], Sequence[Image.Image]], Any]
"""Of texts and as many RGB pictures; gives a number for each pair."""
