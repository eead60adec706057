import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from altdiffusion_clip.checkpoints.writer import TensorToWrite, write_safetensors

TENSORS = {
    "b.float": torch.randn(3, 5),
    "a.half": torch.randn(7).half(),
    "scalar": torch.tensor(2.5),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "ids": torch.arange(4),
    "empty": torch.empty(0, 3),
    "truth": torch.tensor([True, False]),
    "brain": torch.randn(2, 2).bfloat16(),
}


def entries(tensors: dict[str, torch.Tensor]) -> list[TensorToWrite]:
    return [TensorToWrite(name, tensor.shape, tensor.dtype, tensor.clone) for name, tensor in tensors.items()]


def test_what_safetensors_reads_is_what_was_written(tmp_path: Path) -> None:
    counts = []
    size = write_safetensors(tmp_path / "ours.safetensors", entries(TENSORS), {"key": "值"}, counts.append)
    assert size == (tmp_path / "ours.safetensors").stat().st_size
    assert sum(counts) == sum(tensor.nbytes for tensor in TENSORS.values())
    back = load_file(tmp_path / "ours.safetensors")
    assert back.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype, name
        assert torch.equal(back[name], tensor), name
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "key": "值"}


def test_tensors_lie_at_multiples_of_their_elements_size(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "ours.safetensors", entries(TENSORS))
    content = (tmp_path / "ours.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.itemsize == 0, name


def test_dtype_and_shape_are_changed_on_the_way(tmp_path: Path) -> None:
    matrix = torch.randn(4, 4)
    entry = TensorToWrite("matrix", torch.Size([4, 4, 1, 1]), torch.float16, lambda: matrix)
    write_safetensors(tmp_path / "a.safetensors", [entry])
    assert torch.equal(load_file(tmp_path / "a.safetensors")["matrix"], matrix.half()[..., None, None])


def test_a_tensor_of_another_size_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="matrix has 4 elements"):
        write_safetensors(
            tmp_path / "a.safetensors", [TensorToWrite("matrix", torch.Size([5]), torch.float32, lambda: torch.ones(4))]
        )
