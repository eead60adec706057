"""Single tensors out of a checkpoint folder, without reading the rest."""

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


class CheckpointTensors:
    """The tensors of a transformers folder by name, each read when asked for.

    Safetensors are memory-mapped. A `.bin` is memory-mapped too and unpickled with `weights_only=True`:
    nothing in it is executed.

    Args:
        folder: holds `model.safetensors` or `pytorch_model.bin`, also in shards with an index.
        key_mapping: regular expressions and replacements, applied to the names.

    Raises:
        FileNotFoundError: the folder holds none of these files.
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path, key_mapping: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._places: dict[str, tuple[Path, str]] = {}
        self._pickles: dict[Path, dict[str, Tensor]] = {}
        for path in self._files():
            for stored in self._names_in(path):
                name = stored
                for pattern, replacement in (key_mapping or {}).items():
                    name = re.sub(pattern, replacement, name)
                self._places[name] = (path, stored)

    @property
    def names(self) -> Iterable[str]:
        """All names, after the mapping."""
        return self._places.keys()

    def __getitem__(self, name: str) -> Tensor:
        path, stored = self._places[name]
        if path.suffix == ".bin":
            return self._pickles[path][stored]
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(stored)

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None if there is none of that name."""
        return self[name] if name in self._places else None

    def _files(self) -> list[Path]:
        for base in ("model.safetensors", "pytorch_model.bin"):
            if (self.folder / base).is_file():
                return [self.folder / base]
            index = self.folder / f"{base}.index.json"
            if index.is_file():
                shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
                return [self.folder / shard for shard in sorted(set(shards))]
        raise FileNotFoundError(f"{self.folder} holds no AltCLIP: neither model.safetensors nor pytorch_model.bin")

    def _names_in(self, path: Path) -> list[str]:
        try:
            if path.suffix != ".bin":
                with safe_open(path, framework="pt") as file:
                    return list(file.keys())
            self._pickles[path] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return list(self._pickles[path])
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
