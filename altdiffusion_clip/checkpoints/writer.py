"""Writes safetensors one tensor at a time, so that a checkpoint need not fit in memory."""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor that is read when it is written.

    Attributes:
        name: in the file.
        shape: in the file.
        dtype: in the file.
        read: returns it, in any dtype and any shape with the same number of elements.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Its size in the file, in bytes."""
        return self.shape.numel() * self.dtype.itemsize


def write_safetensors(
    path: Path,
    tensors: Iterable[TensorToWrite],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> int:
    """Writes a safetensors file, holding one tensor in memory at a time.

    safetensors' own `save_file` needs all tensors in memory at once, in their final dtype.

    Args:
        path: the file. The caller should pass a temporary one.
        tensors: in any order.
        metadata: in addition to {"format": "pt"}, which transformers requires.
        progress: called with the number of bytes after each tensor.

    Returns:
        The size of the file in bytes.

    Raises:
        OSError: the disk is full, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import load_file
        >>> ones = TensorToWrite("ones", torch.Size([2]), torch.float16, lambda: torch.ones(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_safetensors(Path(folder) / "a.safetensors", [ones])
        ...     load_file(f"{folder}/a.safetensors")
        {'ones': tensor([1., 1.], dtype=torch.float16)}
    """
    # In safetensors' own order, which aligns every tensor to its element size.
    ordered = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for tensor in ordered:
        start, end = end, end + tensor.nbytes
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in ordered:
            value = tensor.read().detach().to("cpu", tensor.dtype).reshape(-1).contiguous()
            if value.numel() * value.itemsize != tensor.nbytes:
                raise ValueError(f"{tensor.name} has {value.numel()} elements and not the shape {tuple(tensor.shape)}")
            file.write(value.view(torch.uint8).numpy().data)
            progress(tensor.nbytes)
    return 8 + len(text) + end
