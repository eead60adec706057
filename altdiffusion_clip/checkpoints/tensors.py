"""Reads tensors from checkpoint files by name, each when it is needed."""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from altdiffusion_clip.errors import CheckpointError

WEIGHT_NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
"""The stems of transformers' and diffusers' weight files, before variant, shard number and suffix."""

LET_GO_AFTER = 2**29
"""Bytes read from a memory-mapped pickle before it is reopened, so that those pages can leave memory."""

_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class CheckpointTensors(Mapping[str, Tensor]):
    """The tensors of one or several files by name, each read when it is needed.

    Safetensors are memory-mapped, and so are pickles that torch wrote as zip files. Pickles are read with
    `weights_only=True`, so nothing in them is executed. The first bytes of a file tell its format.

    Args:
        files: one file, or the shards of a checkpoint.
        rename: maps a name in the file to the name here, or to None to leave the tensor out.

    Raises:
        CheckpointError: a file is damaged, has no weights, or would have to run code.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"old.weight": torch.ones(2)}, f"{folder}/model.safetensors")
        ...     tensors = CheckpointTensors.in_folder(Path(folder), lambda name: name.replace("old", "new"))
        ...     dict(tensors)
        {'new.weight': tensor([1., 1.])}
    """

    def __init__(self, *files: Path, rename: Callable[[str], str | None] | None = None) -> None:
        self.files = files
        self.metadata: dict[str, str] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        self._shapes: dict[str, tuple[torch.Size, torch.dtype]] = {}
        self._pickles: dict[Path, Mapping[str, Any]] = {}
        self._read_of_pickles = 0
        for path in files:
            for stored, shape, dtype in self._survey(path):
                name = stored if rename is None else rename(stored)
                if name is not None:
                    self._places[name] = (path, stored)
                    self._shapes[name] = (shape, dtype)

    @classmethod
    def in_folder(cls, folder: Path, rename: Callable[[str], str | None] | None = None) -> Self:
        """The weights of one component's folder.

        Raises:
            CheckpointError: there are no weights, a shard is missing, or a file is damaged.
        """
        return cls(*weight_files(folder), rename=rename)

    def __getitem__(self, name: str) -> Tensor:
        path, stored = self._places[name]
        if is_pickle(path):
            if path not in self._pickles or self._read_of_pickles > LET_GO_AFTER:
                self._pickles[path], self._read_of_pickles = _unpickle(path), 0
            tensor = self._pickles[path][stored]
            self._read_of_pickles += tensor.nbytes
            return tensor
        # Opened for each tensor, because an open file keeps what was read in memory.
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # Mapping's own `__contains__` would read the tensor

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        return self._shapes[name][0]

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of a tensor, without reading it."""
        return self._shapes[name][1]

    def together(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Memory-maps each file once, for tensors that a model keeps.

        Pages that were read stay in memory as long as any of the tensors exists.
        """
        places = {name: self._places[name] for name in names}
        tensors: dict[str, Tensor] = {}
        for path in dict.fromkeys(path for path, _ in places.values()):
            if is_pickle(path):
                stored = _unpickle(path)
                tensors |= {name: stored[place[1]] for name, place in places.items() if place[0] == path}
                continue
            with safe_open(path, framework="pt") as file:
                tensors |= {name: file.get_tensor(place[1]) for name, place in places.items() if place[0] == path}
        return tensors

    def rows(self, name: str, most: int = 2**26) -> Iterator[Tensor]:
        """Reads a tensor in blocks of rows. Each can be freed before the next is read.

        Args:
            name: of a tensor with at least one dimension.
            most: bytes per block.
        """
        path, stored = self._places[name]
        shape, dtype = self._shapes[name]
        step = max(1, most * shape[0] // max(1, shape.numel() * dtype.itemsize))
        for start in range(0, shape[0], step):
            if is_pickle(path):
                yield self[name][start : start + step]
                continue
            with safe_open(path, framework="pt") as file:
                yield file.get_slice(stored)[start : start + step]

    def select(self, rename: Callable[[str], str | None]) -> "CheckpointTensors":
        """The same tensors under other names, without those that `rename` maps to None."""
        other = CheckpointTensors()
        other.files, other.metadata, other._pickles = self.files, self.metadata, self._pickles
        for old, place in self._places.items():
            new = rename(old)
            if new is not None:
                other._places[new], other._shapes[new] = place, self._shapes[old]
        return other

    def joined(self, other: "CheckpointTensors") -> "CheckpointTensors":
        """The tensors of both, in one mapping."""
        both = CheckpointTensors()
        both.files, both.metadata = (*self.files, *other.files), {**other.metadata, **self.metadata}
        for part in (other, self):
            both._places |= part._places
            both._shapes |= part._shapes
            both._pickles |= part._pickles
        return both

    def _survey(self, path: Path) -> Iterator[tuple[str, torch.Size, torch.dtype]]:
        if not path.is_file():
            raise CheckpointError(f"there is no file {path}")
        if is_pickle(path):
            self._pickles[path] = _unpickle(path)
            for name, tensor in self._pickles[path].items():
                yield name, tensor.shape, tensor.dtype
            return
        try:
            with safe_open(path, framework="pt") as file:
                self.metadata.update(file.metadata() or {})
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    part = file.get_slice(name)
                    yield name, torch.Size(part.get_shape()), _SAFETENSORS_DTYPES[part.get_dtype()]
        except (SafetensorError, OSError, KeyError) as error:
            raise _damaged(path, error) from error


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The files of a component's weights, safetensors before pickles.

    Args:
        folder: of the component.
        variant: such as "fp16"; if not given, files without a variant are preferred.

    Raises:
        CheckpointError: there are no files, or shards in the index are missing.
    """
    for suffix in (".safetensors", ".bin"):
        for base in WEIGHT_NAMES:
            middle = f".{variant}" if variant else ""
            any_variant = [] if variant else sorted(folder.glob(f"{base}.*{suffix}"))
            for path in (folder / f"{base}{middle}{suffix}", *(p for p in any_variant if "-of-" not in p.name)):
                if path.is_file():
                    return [path]
            index = f"{base}{suffix}.index{middle or '*'}.json"
            for path in sorted(folder.glob(index), key=lambda path: len(path.name)):
                return _shards(path)
    wanted = f"of variant {variant}" if variant else f"(neither {' nor '.join(f'{b}.*' for b in WEIGHT_NAMES)})"
    raise CheckpointError(f"{folder} holds no weights {wanted}")


def has_weights(folder: Path) -> bool:
    """Whether this folder has any file that `weight_files` looks for."""
    return any(
        next(folder.glob(f"{base}*{suffix}*"), None) for base in WEIGHT_NAMES for suffix in (".safetensors", ".bin")
    )


def is_pickle(path: Path) -> bool:
    """Whether torch wrote a file (a zip file, or a bare pickle before torch 1.6)."""
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, and the header begins with a brace.
    return start[8:9] != b"{" and start.startswith((b"PK", b"\x80"))


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise CheckpointError(f"{index} is damaged; download it again") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"{index.parent} lacks {missing[0]}, which {index.name} names; download it again")
    return [index.parent / name for name in names]


def _unpickle(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path} would have to run code to load ({wanted[1]}), so it is not opened; ask for a safetensors file"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise _damaged(path, error) from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__} and no named tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _damaged(path: Path, error: Exception) -> CheckpointError:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return CheckpointError(f"{path} is a Git LFS pointer and not the weights; run `git lfs pull`")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} is damaged or cut short ({reason}); download it again")
