import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from altdiffusion_clip.checkpoints.tensors import CheckpointTensors, weight_files
from altdiffusion_clip.errors import CheckpointError, UserError

TENSORS = {"old.layers.0": torch.arange(12.0).reshape(6, 2), "head": torch.ones(2, dtype=torch.float16)}


def write(folder: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file(TENSORS, folder / "model.safetensors")
    elif kind == "bin":
        torch.save(TENSORS, folder / "pytorch_model.bin")
    elif kind == "bin before torch 1.6":
        torch.save(TENSORS, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    elif kind == "Lightning":
        torch.save({"state_dict": TENSORS, "global_step": 3}, folder / "pytorch_model.bin")
    else:
        places = {}
        for number, (name, tensor) in enumerate(TENSORS.items()):
            shard = f"model-{number:05d}-of-00002.safetensors"
            save_file({name: tensor}, folder / shard)
            places[name] = shard
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("kind", ["safetensors", "bin", "bin before torch 1.6", "Lightning", "sharded"])
def test_reads_every_kind_under_the_names_that_are_wanted(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    tensors = CheckpointTensors.in_folder(tmp_path, lambda name: name.replace("old.layers", "new.layer"))
    assert set(tensors) == {"new.layer.0", "head"}
    assert len(tensors) == 2
    torch.testing.assert_close(tensors["new.layer.0"], TENSORS["old.layers.0"])
    assert tensors.shape("new.layer.0") == (6, 2)
    assert tensors.dtype("head") == torch.float16
    assert "old.layers.0" not in tensors
    torch.testing.assert_close(tensors["head"], TENSORS["head"])
    only = tensors.select(lambda name: name.upper() if name == "head" else None)
    assert list(only) == ["HEAD"]
    blocks = list(tensors.rows("new.layer.0", most=16))
    assert [len(block) for block in blocks] == [2, 2, 2]
    torch.testing.assert_close(torch.cat(blocks), TENSORS["old.layers.0"])


def test_safetensors_come_before_pickles_and_plain_names_before_variants(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    assert [path.name for path in weight_files(tmp_path, "fp16")] == ["model.fp16.safetensors"]
    (tmp_path / "model.safetensors").unlink()
    assert [path.name for path in weight_files(tmp_path)] == ["model.fp16.safetensors"]
    with pytest.raises(CheckpointError, match="no weights of variant bf16"):
        weight_files(tmp_path, "bf16")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        CheckpointTensors.in_folder(tmp_path)
    with pytest.raises(CheckpointError, match="there is no file"):
        CheckpointTensors(tmp_path / "nothing")


class TestDamage:
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 cut", b"\x80\x02}q", b"<html>no</html>"])
    def test_a_file_that_is_none_is_named(self, name: str, content: bytes, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name) as caught:
            CheckpointTensors.in_folder(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", ["safetensors", "bin"])
    @pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
    def test_a_file_that_was_cut_short(self, kind: str, part: float, published: Path, tmp_path: Path) -> None:
        source = {
            "safetensors": published / "alt-diffusion-m18-tiny" / "unet" / "diffusion_pytorch_model.safetensors",
            "bin": published / "alt-diffusion-m9-tiny" / "unet" / "diffusion_pytorch_model.bin",
        }[kind]
        path = Path(shutil.copy(source, tmp_path))
        os.truncate(path, int(part * path.stat().st_size))
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            CheckpointTensors.in_folder(tmp_path)

    def test_a_git_lfs_pointer(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00")
        with pytest.raises(CheckpointError, match="git lfs pull"):
            CheckpointTensors.in_folder(tmp_path)


class Exploit:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_runs_no_code(zipped: bool, tmp_path: Path) -> None:
    exploit = Exploit(f"touch {tmp_path / 'exploited'}")
    torch.save({"head": exploit}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"would have to run code to load \(\w+\.system\)"):
        CheckpointTensors.in_folder(tmp_path)
    assert not (tmp_path / "exploited").exists()


def test_the_error_is_a_users_and_a_value_error() -> None:
    assert issubclass(CheckpointError, UserError)
    assert issubclass(CheckpointError, ValueError)
