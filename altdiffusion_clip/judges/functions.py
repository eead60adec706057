"""Judges that are Python functions of texts and pictures."""

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.judges.base import Function, Inputs
from altdiffusion_clip.judges.preprocessing import PIXELS, AsItIs


class FunctionJudge:
    """A function that returns a number for each pair of a text and a picture.

    Args:
        function: takes a list of texts and a list of as many RGB pictures, and returns as many numbers, higher for a
            better fit. A number that is not finite is no score.
        name: to show; by default the function's own.

    Example:
        >>> def is_wide(texts, pictures):
        ...     return [picture.width / picture.height for picture in pictures]
        >>> judge = FunctionJudge(is_wide)
        >>> pictures = [judge.preprocess(Image.new("RGB", size)) for size in ((64, 32), (32, 64))]
        >>> judge.pair_scores(["anything"] * 2, pictures).tolist()
        [2.0, 0.5]
    """

    measure = "score"

    def __init__(self, function: Function, name: str = "") -> None:
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.preprocess = AsItIs()
        self.function = function

    @property
    def device(self) -> torch.device:
        """The CPU, where its numbers are. It may compute anywhere."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its numbers."""
        return torch.float32

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Does nothing."""
        del device, dtype
        return self

    def pair_scores(self, texts: Sequence[str], pictures: Sequence[Inputs]) -> Tensor:
        """Scores text i with picture i: float32 (pairs,).

        Raises:
            UserError: the function fails, or does not return one number per pair.
        """
        images = [Image.fromarray(picture[PIXELS]) for picture in pictures]
        try:
            given = self.function(list(texts), images)
            numbers = given.detach().float().cpu() if isinstance(given, Tensor) else np.asarray(given, np.float32)
        except Exception as error:  # user code
            raise UserError(f"the judge {self.name} fails: {type(error).__name__}: {one_line(error)}") from error
        scores = torch.as_tensor(numbers)
        if scores.shape != (len(images),):
            shape = tuple(scores.shape)
            raise UserError(
                f"the judge {self.name} gave the shape {shape} for {len(images)} pictures; give one number for each"
            )
        return scores

    def probability(self, scores: Tensor) -> None:
        """None, because its numbers have no unit."""

    def fingerprint(self) -> str:
        """A hash of the source of its file, or of its name if there is none."""
        subject: Any = self.function if hasattr(self.function, "__code__") else type(self.function)
        try:
            source = Path(inspect.getfile(subject)).read_bytes()
        except (TypeError, OSError):
            source = b""
        return hashlib.blake2b(source + repr(getattr(subject, "__qualname__", "")).encode(), digest_size=16).hexdigest()


def load(name: str, spec: str, device: torch.device, dtype: torch.dtype) -> FunctionJudge:
    """Finds a function.

    Args:
        name: to show.
        spec: "MODULE:FUNCTION" for an importable module, or "FILE.py:FUNCTION".
        device: not used.
        dtype: not used.

    Raises:
        UserError: there is no such function.
    """
    del device, dtype
    module_name, _, attribute = spec.rpartition(":")
    if not module_name or not attribute:
        raise UserError(f"python:{spec} names no function; write python:MODULE:FUNCTION, or python:FILE.py:FUNCTION")
    try:
        is_file = module_name.endswith(".py")
        module = _module_of_file(Path(module_name)) if is_file else importlib.import_module(module_name)
        function = getattr(module, attribute)
    except Exception as error:  # importing a module can raise anything
        raise UserError(f"cannot load python:{spec}: {one_line(error)}") from error
    if not callable(function):
        raise UserError(f"{attribute} in {module_name} is a {type(function).__name__}, not a function")
    return FunctionJudge(function, name)


def _module_of_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
