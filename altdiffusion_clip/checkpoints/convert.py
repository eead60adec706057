"""Writes a checkpoint in another layout, with little memory, completely or not at all."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from altdiffusion_clip.checkpoints import ldm
from altdiffusion_clip.checkpoints.architectures import CONFIG_FILES
from altdiffusion_clip.checkpoints.companions import VOCABULARIES, small_files, write_companions
from altdiffusion_clip.checkpoints.layouts import (
    EMBEDDED_CONFIGS,
    EMBEDDED_FILES,
    Checkpoint,
    Layout,
    ldm_name,
    open_checkpoint,
)
from altdiffusion_clip.checkpoints.model_ids import SCORER, fetch
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors, has_weights
from altdiffusion_clip.checkpoints.writer import TensorToWrite, write_safetensors
from altdiffusion_clip.errors import CheckpointError, UserError
from altdiffusion_clip.files import atomic_folder, atomic_path, free_bytes

SINGLE_FILE = ".safetensors"
"""The suffix of a destination that is to be a single file."""

_OTHER_PARTS = ("safety_checker", "image_encoder")


@dataclass
class Conversion:
    """What `convert` wrote.

    Attributes:
        destination: the folder or file.
        layout: of it.
        nbytes: its weights, in bytes.
        left_out: what the source has but the destination's layout cannot hold.
    """

    destination: Path
    layout: Layout
    nbytes: int = 0
    left_out: list[str] = field(default_factory=list)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    config: str | os.PathLike[str] | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    extract_ema: bool = False,
    progress: Callable[[int, int], object] = lambda written, total: None,
    **hub: Any,
) -> Conversion:
    """Writes a checkpoint of any published layout as a diffusers folder or as a single file, in safetensors.

    Only one tensor at a time is in memory. Weights are copied bit by bit, unless `dtype` is given. An AltCLIP becomes a
    folder in transformers' layout.

    Args:
        source: "emoji-m18", a folder, a single file, or a hub id.
        destination: a new folder, or a file whose name ends in .safetensors.
        dtype: of the floating point tensors.
        variant: such as "fp16", for the names of the weights in a folder.
        config: a diffusers folder of the same sizes, for a single file of unpublished sizes.
        tokenizer: a folder or hub id with the tokenizer, for a single file without one.
        extract_ema: take the moving average of the UNet's weights instead of the last weights.
        progress: called with the bytes written and the total.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, for a hub id.

    Raises:
        CheckpointError: the source cannot be used.
        UserError: the destination cannot be written: it exists, or the disk is full. Nothing is left there.
    """
    checkpoint = open_checkpoint(fetch(source, **hub), None if config is None else Path(config))
    if extract_ema and checkpoint.ema is None:
        raise CheckpointError(f"{source} has no moving average of its weights; omit --ema")
    place = Path(destination).expanduser()
    if place.suffix == SINGLE_FILE and checkpoint.layout is Layout.ALTCLIP:
        raise CheckpointError(f"{source} is an AltCLIP without a UNet, which no single file is; name a folder to write")
    return write_checkpoint(checkpoint, place, dtype, variant, tokenizer, extract_ema, progress, **hub)


def write_checkpoint(
    checkpoint: Checkpoint,
    place: Path,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    extract_ema: bool = False,
    progress: Callable[[int, int], object] = lambda written, total: None,
    **hub: Any,
) -> Conversion:
    """Writes an opened checkpoint as a folder or a single file; see `convert`.

    Its tensors can be any that are read lazily, such as those computed by `altdiffusion_clip.checkpoints.merge`.

    Raises:
        UserError: the destination cannot be written: it exists, or the disk is full. Nothing is left there.
    """
    single = place.suffix == SINGLE_FILE
    if single and variant:
        raise UserError("a variant names the weights of a folder; a single file is named by you")
    if place.exists() and (single or not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists already; remove it or choose another name")

    job = _Job(checkpoint, dtype, extract_ema, progress)
    files = job.single_file() if single else job.folder(variant)
    total = sum(tensor.nbytes for _, tensors in files for tensor in tensors)
    free = free_bytes(place)
    if free < total:
        raise UserError(f"{place} needs {_gigabytes(total)} and the disk has {_gigabytes(free)} free")
    job.total = total
    try:
        if single:
            with atomic_path(place) as temporary:
                job.write(temporary, files[0][1], _embedded_configs(checkpoint))
        else:
            with atomic_folder(place) as temporary:
                write_companions(checkpoint, temporary, tokenizer, **hub)
                for name, tensors in files:
                    (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                    job.write(temporary / name, tensors)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}") from error
    layout = Layout.WEBUI if single else Layout.ALTCLIP if checkpoint.layout is Layout.ALTCLIP else Layout.DIFFUSERS
    return Conversion(place, layout, total, job.left_out(single))


class _Job:
    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None,
        extract_ema: bool,
        progress: Callable[[int, int], object],
    ) -> None:
        self.checkpoint, self.dtype, self.extract_ema, self.progress = checkpoint, dtype, extract_ema, progress
        self.written, self.total = 0, 0

    def folder(self, variant: str | None) -> list[tuple[str, list[TensorToWrite]]]:
        """The files of a folder with their tensors, by relative path."""
        middle = f".{variant}" if variant else ""
        if self.checkpoint.layout is Layout.ALTCLIP:
            return [(f"model{middle}.safetensors", list(self.part("altclip")))]
        files = []
        for part in self.checkpoint.tensors:
            base = "diffusion_pytorch_model" if part in ("unet", "vae") else "model"
            files.append((f"{Path(CONFIG_FILES[part]).parent}/{base}{middle}.safetensors", list(self.part(part))))
        for part in self.other_parts():
            tensors = CheckpointTensors.in_folder(self.checkpoint.path / part)
            names = [self.to_write(tensors, name, tensors.shape(name)) for name in tensors]
            files.append((f"{part}/model{middle}.safetensors", names))
        return files

    def single_file(self) -> list[tuple[str, list[TensorToWrite]]]:
        """The tensors of a single file for the WebUIs."""
        everything = []
        for part, prefix in (("unet", ldm.UNET), ("vae", ldm.VAE)):
            rename = ldm_name(part, self.checkpoint.configs[part])
            for tensor in self.part(part):
                name = rename(tensor.name)
                # In the autoencoder's attention, LDM has 1x1 convolutions and diffusers has matrices.
                shape = (*tensor.shape, 1, 1) if ldm.is_vae_attention_matrix(name) and part == "vae" else tensor.shape
                everything.append(TensorToWrite(prefix + name, torch.Size(shape), tensor.dtype, tensor.read))
        for tensor in self.part("text_encoder"):
            everything.append(TensorToWrite(ldm.CONDITIONING + tensor.name, tensor.shape, tensor.dtype, tensor.read))
        everything += _tokenizer_bytes(self.checkpoint)
        return [("", everything)]

    def part(self, part: str) -> Iterator[TensorToWrite]:
        """The tensors of a part under diffusers' names."""
        checkpoint = self.checkpoint
        averaged = part == "unet" and self.extract_ema and checkpoint.ema is not None
        tensors = checkpoint.ema if averaged and checkpoint.ema is not None else checkpoint.tensors[part]
        for name in tensors:
            yield self.to_write(tensors, name, checkpoint.shape(part, name))

    def to_write(self, tensors: CheckpointTensors, name: str, shape: torch.Size) -> TensorToWrite:
        dtype = tensors.dtype(name)
        if self.dtype is not None and dtype.is_floating_point:
            dtype = self.dtype
        return TensorToWrite(name, shape, dtype, lambda: tensors[name])

    def other_parts(self) -> list[str]:
        """Components of a diffusers folder that AltDiffusion does not draw with."""
        folder = self.checkpoint.path
        if self.checkpoint.layout is not Layout.DIFFUSERS:
            return []
        return [part for part in _OTHER_PARTS if has_weights(folder / part)]

    def left_out(self, single: bool) -> list[str]:
        checkpoint = self.checkpoint
        left = self.other_parts() if single else []
        if checkpoint.layout is Layout.DIFFUSERS:
            known = (*_OTHER_PARTS, SCORER, *checkpoint.tensors)
            left += [
                p.name
                for p in sorted(checkpoint.path.iterdir())
                if p.is_dir() and p.name not in known and has_weights(p)
            ]
        if single and "altclip" in checkpoint.tensors:
            left.append("the scorer")
        if checkpoint.ema is not None:
            left.append("the UNet's last weights" if self.extract_ema else "the UNet's moving average (--ema takes it)")
        return left

    def write(self, path: Path, tensors: Iterable[TensorToWrite], metadata: dict[str, str] | None = None) -> None:
        write_safetensors(path, tensors, metadata, self._count)

    def _count(self, count: int) -> None:
        self.written += count
        self.progress(self.written, self.total)


def _embedded_configs(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata that makes a single file self-contained."""
    if checkpoint.is_single_file:
        return {EMBEDDED_CONFIGS: json.dumps(checkpoint.embedded)} if checkpoint.embedded else {}
    texts = {
        name: path.read_text(encoding="utf-8")
        for name, path in small_files(checkpoint.path).items()
        if path.suffix == ".json" and path.name not in VOCABULARIES and not name.startswith((SCORER, *_OTHER_PARTS))
    }
    return {EMBEDDED_CONFIGS: json.dumps(texts)}


def _tokenizer_bytes(checkpoint: Checkpoint) -> list[TensorToWrite]:
    if checkpoint.is_single_file:
        everything = CheckpointTensors(checkpoint.path)
        return [
            TensorToWrite(name, everything.shape(name), torch.uint8, lambda name=name: everything[name])  # type: ignore[misc]
            for name in everything
            if name.startswith(EMBEDDED_FILES)
        ]
    for name in VOCABULARIES:
        path = checkpoint.path / "tokenizer" / name
        if path.is_file():
            content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            return [TensorToWrite(EMBEDDED_FILES + name, content.shape, torch.uint8, content.clone)]
    return []


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
