"""Finds out what a checkpoint is and whether it is complete."""

from collections import Counter
from dataclasses import dataclass, field

from altdiffusion_clip.checkpoints.architectures import expected_shapes, languages, model_name
from altdiffusion_clip.checkpoints.layouts import Checkpoint


@dataclass
class Part:
    """One part of a checkpoint.

    Attributes:
        name: "unet", "vae", "text_encoder" or "altclip".
        tensors: how many there are.
        parameters: their elements.
        nbytes: their size in the file, in bytes.
        dtypes: the dtypes, the most common first.
        missing: names that the configuration requires.
        surplus: names that are not used.
        misshapen: names whose shape differs from the configuration's, with both shapes.
    """

    name: str
    tensors: int
    parameters: int
    nbytes: int
    dtypes: list[str]
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)


@dataclass
class Inspection:
    """What a checkpoint is.

    Attributes:
        path: its folder or file.
        layout: in words.
        model: "m2", "m9", "m18", or "m2 or m9" because these have the same shapes.
        languages: ISO codes.
        has_ema: whether it also has the moving average of the UNet's weights.
        parts: its parts.
    """

    path: str
    layout: str
    model: str
    languages: str
    has_ema: bool
    parts: list[Part]

    @property
    def is_whole(self) -> bool:
        """Whether no tensor is missing or misshapen."""
        return not any(part.missing or part.misshapen for part in self.parts)


def inspect(checkpoint: Checkpoint, name: str = "") -> Inspection:
    """Inspects a checkpoint without reading tensors.

    Args:
        checkpoint: of any layout.
        name: the user's name for it, which may tell m2 from m9.

    Example:
        >>> from altdiffusion_clip.checkpoints.layouts import open_checkpoint
        >>> from pathlib import Path
        >>> from altdiffusion_clip.checkpoints.model_ids import resolve
        >>> report = inspect(open_checkpoint(Path(resolve("emoji-m18"))), "emoji-m18")
        >>> report.model, report.languages[:11], report.is_whole
        ('m18', 'en zh ja th', True)
    """
    hint = f"{name} {checkpoint.path.name}"
    model = model_name(checkpoint.tensors["text_encoder"], hint)
    parts = [_part(checkpoint, part) for part in checkpoint.tensors if part in checkpoint.configs]
    return Inspection(
        str(checkpoint.path), str(checkpoint.layout), model, languages(model), checkpoint.ema is not None, parts
    )


def _part(checkpoint: Checkpoint, part: str) -> Part:
    tensors = checkpoint.tensors[part]
    shapes = {name: checkpoint.shape(part, name) for name in tensors}
    expected = expected_shapes(part, checkpoint.configs[part])
    optional: set[str] = set()
    if part == "text_encoder" and not checkpoint.configs[part].get("has_pre_transformation"):
        optional = {"pre_LN.weight", "pre_LN.bias"}  # m2 and m9 were published with it and without
    dtypes = Counter(str(tensors.dtype(name)).removeprefix("torch.") for name in tensors)
    return Part(
        name=part,
        tensors=len(tensors),
        parameters=sum(shape.numel() for shape in shapes.values()),
        nbytes=sum(shape.numel() * tensors.dtype(name).itemsize for name, shape in shapes.items()),
        dtypes=[dtype for dtype, _ in dtypes.most_common()],
        missing=sorted(expected.keys() - shapes.keys() - optional),
        surplus=sorted(shapes.keys() - expected.keys()),
        misshapen=[
            f"{name}: {tuple(shape)}, not {tuple(expected[name])}"
            for name, shape in shapes.items()
            if name in expected and shape != expected[name]
        ],
    )
