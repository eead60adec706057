import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from altdiffusion_clip.checkpoints.layouts import open_checkpoint
from altdiffusion_clip.cli import main


def test_there_and_back(published: Path, tmp_path: Path, capsys) -> None:
    single, folder = tmp_path / "single.safetensors", tmp_path / "folder"
    assert main(["convert", str(published / "alt-diffusion-m9-tiny"), str(single), "--dtype", "float16"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{single}: AltDiffusion, a single file as the WebUIs write it, 1.1 MB\n"
    assert "left out: safety_checker" in printed.err
    assert "writing: 100%" in printed.err
    assert main(["convert", str(single), str(folder), "--variant", "fp16"]) == 0
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    assert open_checkpoint(folder).tensors.keys() == {"unet", "vae", "text_encoder"}


def test_a_destination_that_is_there(published: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.safetensors").touch()
    assert main(["convert", str(published / "alt-diffusion-m9-tiny"), str(tmp_path / "a.safetensors")]) == 2
    assert "exists already; remove it or choose another name" in capsys.readouterr().err


SLOW = """
import sys, time
from altdiffusion_clip.checkpoints import convert
original = convert.TensorToWrite
def slow(name, shape, dtype, read):
    def slowly():
        time.sleep(0.05)
        print("tensor", flush=True)
        return read()
    return original(name, shape, dtype, slowly)
convert.TensorToWrite = slow
from altdiffusion_clip.cli import main
sys.exit(main(["convert", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("name", ["folder", "single.safetensors"])
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_kill_on_the_way_leaves_nothing_under_the_final_name(
    blow, name: str, published: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SLOW, str(published / "alt-diffusion-m9-tiny"), str(tmp_path / name)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == "tensor\n"
    os.kill(process.pid, blow)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / name).exists()
    if blow is not signal.SIGKILL:  # which no process can answer: its hidden temporary remains
        assert process.returncode == 130
        assert "altdiffusion: stopped" in errors
        assert "Traceback" not in errors
        assert not any(tmp_path.iterdir())
    assert main(["convert", str(published / "alt-diffusion-m9-tiny"), str(tmp_path / name)]) == 0
