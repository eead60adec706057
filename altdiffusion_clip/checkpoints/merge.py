"""Gives a fine-tuned Stable Diffusion the languages of an AltDiffusion, without training.

Alignment to another text encoder moved AltDiffusion's UNet a little away from Stable Diffusion's. Where others moved
the same Stable Diffusion elsewhere, for example to a style, both changes can be added: target + strength · (alt - base)
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
"""What to add: the whole difference, or only that of the layers that read the text."""


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
    """Writes a model that draws in the target's style, from prompts in the languages of an AltDiffusion.

    The autoencoder is the target's; the text encoder, tokenizer and scorer are the AltDiffusion's. Only one tensor at a
    time is in memory.

    Args:
        base: the Stable Diffusion that both were made from: a folder, a single file or a hub id.
        alt: the AltDiffusion.
        target: another fine-tuned model of the base.
        destination: a new folder, or a file whose name ends in .safetensors.
        strength: the factor of the difference.
        what: one of `WHAT`.
        dtype: of the weights; the target's by default.
        tokenizer: the AltDiffusion's tokenizer, in case it is a single file without one.
        progress: called with the bytes written and the total.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, for hub ids.

    Raises:
        CheckpointError: one of the three cannot be used, or their UNets have different shapes. The message names the
            first tensor that differs.
        UserError: the destination cannot be written, or `what` is unknown.
    """
    if what not in WHAT:
        raise UserError(f"what to merge is {what!r}; choose one of {', '.join(WHAT)}")
    checkpoint = open_checkpoint(fetch(alt, **hub))
    if checkpoint.layout is Layout.ALTCLIP:
        raise CheckpointError(f"{alt} is an AltCLIP without a UNet; give an AltDiffusion")
    of_base, of_target = (unet_and_vae(fetch(name, **hub), checkpoint) for name in (base, target))
    unet = Sum(of_target["unet"], checkpoint.tensors["unet"], of_base["unet"], strength, what)
    unet.check(str(target), str(alt), str(base))
    # All tensors have diffusers' names here, also those of single files.
    merged = dataclasses.replace(
        checkpoint, tensors={**checkpoint.tensors, "unet": unet, "vae": of_target["vae"]}, ema=None
    )
    return write_checkpoint(merged, Path(destination).expanduser(), dtype, None, tokenizer, False, progress, **hub)


def unet_and_vae(path: Path, like: Checkpoint) -> dict[str, CheckpointTensors]:
    """The UNet and the autoencoder of any Stable Diffusion, under diffusers' names.

    Args:
        path: a diffusers folder or a single file.
        like: an AltDiffusion of the same sizes, whose configurations explain a single file's tensors.

    Raises:
        CheckpointError: it has no UNet or autoencoder.
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
    """target + strength · (alt - base), computed tensor by tensor when it is read.

    Args:
        target: gives the names, and by default the dtypes.
        alt: the changed tensors.
        base: what they were changed from.
        strength: the factor of the difference.
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
        # Adding in half precision would lose the smallest changes.
        difference = self._alt[name].float() - self._base[name].float()
        return (target.float() + self._strength * difference.reshape(target.shape)).to(target.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._target)

    def __len__(self) -> int:
        return len(self._target)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        return self._target.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without reading it."""
        return self._target.dtype(name)

    def check(self, target: str, alt: str, base: str) -> None:
        """Rejects three UNets of different shapes.

        Raises:
            CheckpointError: it names the first tensor that differs.
        """
        for name in self._alt:
            for place, tensors in ((target, self._target), (base, self._base)):
                if name not in tensors:
                    raise CheckpointError(
                        f"the UNet of {place} lacks {name}, which {alt} has; they have no common base"
                    )
                theirs, ours = tensors.shape(name), self._alt.shape(name)
                # Projections are matrices in some UNets and 1x1 convolutions in others.
                if theirs.numel() != ours.numel():
                    raise CheckpointError(
                        f"{name} is {tuple(theirs)} in {place} and {tuple(ours)} in {alt}; they have no common base"
                    )


def reads_text(name: str) -> bool:
    """Whether a tensor of a UNet reads the text, as the keys and values of the cross-attention do.

    Example:
        >>> reads_text("mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight")
        True
    """
    return ".attn2.to_k." in name or ".attn2.to_v." in name
