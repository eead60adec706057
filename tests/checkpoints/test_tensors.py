import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from altdiffusion_clip.checkpoints.tensors import CheckpointTensors

TENSORS = {"old.layers.0": torch.arange(3.0), "head": torch.ones(2)}


def write(folder: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file(TENSORS, folder / "model.safetensors")
    elif kind == "bin":
        torch.save(TENSORS, folder / "pytorch_model.bin")
    else:
        places = {}
        for number, (name, tensor) in enumerate(TENSORS.items()):
            shard = f"model-{number:05d}.safetensors"
            save_file({name: tensor}, folder / shard)
            places[name] = shard
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("kind", ["safetensors", "bin", "sharded"])
def test_reads_every_kind_under_mapped_names(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    tensors = CheckpointTensors(tmp_path, {r"^old\.layers\.": "new.layer."})
    assert set(tensors.names) == {"new.layer.0", "head"}
    torch.testing.assert_close(tensors["new.layer.0"], torch.arange(3.0))
    assert tensors.get("old.layers.0") is None


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no AltCLIP"):
        CheckpointTensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match=name):
        CheckpointTensors(tmp_path)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploited",)

    torch.save({"head": Exploit()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        CheckpointTensors(tmp_path)
    assert not (tmp_path / "exploited").exists()
