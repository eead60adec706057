"""Giving other people's weights the languages of an AltDiffusion, without training.

AltDiffusion's UNet is Stable Diffusion's, moved a little by the alignment to another text encoder. Where others have
moved the same Stable Diffusion elsewhere, to a style say, both moves can be added: target + strength · (alt - base)
(task arithmetic, arXiv 2212.04089).
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from altdiffusion_clip.checkpoints.convert import Conversion, write_checkpoint
from altdiffusion_clip.checkpoints.layouts import (
    TODAYS_NAMES,
    Checkpoint,
    Layout,
    drawing_parts,
    open_checkpoint,
    read_json,
)
from altdiffusion_clip.checkpoints.model_ids import fetch
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.errors import CheckpointError, UserError

WHAT = ("all", "keys-and-values")
"""What may be added: the whole difference, or that of the layers that read the text."""


def merge(
    base: str | os.PathLike[str],
    alt: str | os.PathLike[str],
    target: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    strength: float = 1.0,
    what: str = "all",
    dtype: torch.dtype | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] = lambda written, total: None,
    **hub: Any,
) -> Conversion:
    """Writes a model that draws as the target does, from prompts in the languages of an AltDiffusion.

    Its autoencoder is the target's, its text encoder, tokenizer and scorer are the AltDiffusion's. One tensor at a time
    is in memory.

    Args:
        base: the Stable Diffusion that both were made from: a folder, a single file or a hub id.
        alt: the AltDiffusion.
        target: what others made of the base.
        destination: a folder that is not there yet, or a file whose name ends in .safetensors.
        strength: how much of the difference is added.
        what: one of `WHAT`.
        dtype: of the weights; as they are in the target if not given.
        tokenizer: where the AltDiffusion's tokenizer lies, should it be a single file that brings none.
        progress: is called with the bytes written and those to write.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, for hub ids.

    Raises:
        CheckpointError: one of the three cannot be used, or their UNets are of different shapes; the message names the
            first tensor that differs.
        UserError: the destination cannot be written, or `what` is not known.
    """
    if what not in WHAT:
        raise UserError(f"what to merge is {what!r}; choose one of {', '.join(WHAT)}")
    checkpoint = open_checkpoint(fetch(alt, **hub))
    if checkpoint.layout is Layout.ALTCLIP:
        raise CheckpointError(f"{alt} is an AltCLIP without a UNet; give an AltDiffusion")
    of_base, of_target = (unet_and_vae(fetch(name, **hub), checkpoint) for name in (base, target))
    unet = Sum(of_target["unet"], checkpoint.tensors["unet"], of_base["unet"], strength, what)
    unet.check(str(target), str(alt), str(base))
    # A part that is a single file names its tensors as LDM does; here all have diffusers' names.
    merged = dataclasses.replace(
        checkpoint, tensors={**checkpoint.tensors, "unet": unet, "vae": of_target["vae"]}, ema=None
    )
    return write_checkpoint(merged, Path(destination).expanduser(), dtype, None, tokenizer, False, progress, **hub)


def unet_and_vae(path: Path, like: Checkpoint) -> dict[str, CheckpointTensors]:
    """The UNet and the autoencoder of any Stable Diffusion, under diffusers' names.

    Args:
        path: a diffusers folder or a single file.
        like: an AltDiffusion of the same sizes, whose configurations say what a single file's tensors are.

    Raises:
        CheckpointError: it has none.
    """
    if path.is_dir():
        if not (path / "unet" / "config.json").is_file():
            raise CheckpointError(f"{path} has no unet/config.json; give a Stable Diffusion folder or single file")
        read_json(path / "unet" / "config.json")
        return {part: CheckpointTensors.in_folder(path / part, TODAYS_NAMES.get(part)) for part in ("unet", "vae")}
    parts, _ = drawing_parts(CheckpointTensors(path), like.configs)
    for part, what in (("unet", "UNet"), ("vae", "autoencoder")):
        if not parts[part]:
            raise CheckpointError(f"{path} has no {what} of Stable Diffusion's; give a whole checkpoint")
    return parts


class Sum(CheckpointTensors):
    """target + strength · (alt - base), tensor by tensor, computed when it is read.

    Args:
        target: the sum's names, and by default its dtypes, are those of these.
        alt: moved.
        base: from here.
        strength: how much of the difference is added.
        what: one of `WHAT`.
    """

    def __init__(
        self, target: CheckpointTensors, alt: CheckpointTensors, base: CheckpointTensors, strength: float, what: str
    ) -> None:
        super().__init__()
        self._target, self._alt, self._base, self._strength = target, alt, base, strength
        self._only_text = what == "keys-and-values"

    def __getitem__(self, name: str) -> Tensor:
        target = self._target[name]
        if not target.is_floating_point() or (self._only_text and not reads_text(name)):
            return target
        # A sum of halves in halves would lose what the alignment moved least.
        difference = self._alt[name].float() - self._base[name].float()
        return (target.float() + self._strength * difference.reshape(target.shape)).to(target.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._target)

    def __len__(self) -> int:
        return len(self._target)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, which is not read."""
        return self._target.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, which is not read."""
        return self._target.dtype(name)

    def check(self, target: str, alt: str, base: str) -> None:
        """Refuses three UNets that are not of one shape.

        Raises:
            CheckpointError: the first tensor that differs is named.
        """
        for name in self._alt:
            for place, tensors in ((target, self._target), (base, self._base)):
                if name not in tensors:
                    raise CheckpointError(
                        f"the UNet of {place} lacks {name}, which {alt} has; they have no common base"
                    )
                theirs, ours = tensors.shape(name), self._alt.shape(name)
                # Projections are matrices in some and 1x1 convolutions in others.
                if theirs.numel() != ours.numel():
                    raise CheckpointError(
                        f"{name} is {tuple(theirs)} in {place} and {tuple(ours)} in {alt}; they have no common base"
                    )


def reads_text(name: str) -> bool:
    """Whether a tensor of a UNet belongs to what reads the text: keys and values of the cross-attention.

    Example:
        >>> reads_text("mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")
        True
    """
    return ".attn2.to_k." in name or ".attn2.to_v." in name
