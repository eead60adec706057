import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altdiffusion_clip.checkpoints import convert
from altdiffusion_clip.checkpoints.layouts import open_checkpoint
from altdiffusion_clip.cli import main
from tests.conftest import in_full
from tests.processes import Command


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


def convert_slowly() -> None:
    """Makes each tensor take a while, and a line."""
    original = convert.TensorToWrite

    def slow(name: str, shape: object, dtype: object, read: Callable[[], Any]) -> object:
        def slowly() -> Any:
            time.sleep(0.05)
            print("tensor", flush=True)
            return read()

        return original(name, shape, dtype, slowly)

    convert.TensorToWrite = slow


@pytest.mark.parametrize("name", ["folder", *in_full("single.safetensors")])
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_kill_on_the_way_leaves_nothing_under_the_final_name(
    blow, name: str, published: Path, tmp_path: Path
) -> None:
    place = tmp_path / "there" / name
    place.parent.mkdir()
    process = Command(["convert", published / "alt-diffusion-m9-tiny", place], tmp_path, convert_slowly)
    while not process.stdout.is_file() or process.stdout.read_text().count("tensor") < 20:
        assert process.returncode is None
        time.sleep(0.01)
    process.send_signal(blow)
    code, errors = process.wait(), process.stderr.read_text()
    assert code != 0
    assert not place.exists()
    if blow is not signal.SIGKILL:  # which no process can answer: its hidden temporary remains
        assert code == 130
        assert "altdiffusion: stopped" in errors
        assert "Traceback" not in errors
        assert not any(place.parent.iterdir())
    assert main(["convert", str(published / "alt-diffusion-m9-tiny"), str(place)]) == 0
