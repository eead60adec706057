"""What cannot be loaded is told in one line, by every command, and no code in it is run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import BertConfig, BertModel

from altdiffusion_clip.cli import main
from tests.checkpoints import replicas

COMMANDS = {
    "generate": lambda model, folder: ["generate", "猫", "--model", model, "--output", str(folder / "out")],
    "rerank": lambda model, folder: ["rerank", "猫", str(replicas.FIXTURES / "init.png"), "--model", model],
    "convert": lambda model, folder: ["convert", model, str(folder / "out")],
    "inspect": lambda model, folder: ["inspect", model],
}


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def truncated_safetensors(folder: Path) -> tuple[Path, str]:
    shutil.copytree(replicas.FIXTURES / "alt-diffusion-m18-tiny", folder / "model")
    path = folder / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)
    return folder / "model", f"{path} is damaged or cut short"


def truncated_single_file(folder: Path) -> tuple[Path, str]:
    configs = replicas.config_folder("m9", folder / "configs")
    path = replicas.write(replicas.ldm_tensors("m9", configs, flagai=True), folder / "model.safetensors")
    os.truncate(path, path.stat().st_size // 2)
    return path, f"{path} is damaged or cut short"


def malicious_pickle(folder: Path) -> tuple[Path, str]:
    shutil.copytree(replicas.FIXTURES / "alt-diffusion-m9-tiny", folder / "model")
    path = folder / "model" / "text_encoder" / "pytorch_model.bin"
    torch.save({**torch.load(path, weights_only=True), "x": Exploit(folder / "exploited")}, path)
    return folder / "model", f"{path} would have to run code to load"


def malicious_altclip(folder: Path) -> tuple[Path, str]:
    shutil.copytree(replicas.FIXTURES / "alt-clip-m9-tiny", folder / "model")
    path = folder / "model" / "pytorch_model.bin"
    torch.save({**torch.load(path, weights_only=True), "x": Exploit(folder / "exploited")}, path)
    return folder / "model", f"{path} would have to run code to load"


def malicious_single_file(folder: Path) -> tuple[Path, str]:
    torch.save({"state_dict": {"x": Exploit(folder / "exploited")}}, folder / "model.ckpt")
    return folder / "model.ckpt", "would have to run code to load"


def stable_diffusion_xl(folder: Path) -> tuple[Path, str]:
    names = ("conditioner.embedders.1.model.text_projection", "model.diffusion_model.input_blocks.0.0.weight")
    path = replicas.write({name: torch.ones(2, 2) for name in names}, folder / "sdxl.safetensors")
    return path, f"{path} is a Stable Diffusion XL"


def stable_diffusion_folder(folder: Path) -> tuple[Path, str]:
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    source = replicas.FIXTURES / "alt-diffusion-m18-tiny"
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    unet = UNet2DConditionModel.from_pretrained(source, subfolder="unet")
    vae = AutoencoderKL.from_pretrained(source, subfolder="vae")
    text_encoder = CLIPTextModel(CLIPTextConfig(**size))
    pipe = StableDiffusionPipeline(vae, text_encoder, None, unet, PNDMScheduler(), None, None, None, False)
    pipe.save_pretrained(folder / "sd15")
    return folder / "sd15", "is a StableDiffusionPipeline whose text encoder is CLIPTextModel"


def a_bert(folder: Path) -> tuple[Path, str]:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    BertModel(BertConfig(**size)).save_pretrained(folder / "bert")
    return folder / "bert", "is a BertModel, and neither an AltDiffusion nor an AltCLIP"


def no_model_index(folder: Path) -> tuple[Path, str]:
    shutil.copytree(replicas.FIXTURES / "alt-diffusion-m9-tiny", folder / "model")
    (folder / "model" / "model_index.json").unlink()
    return folder / "model", "has no model_index.json"


def nothing(folder: Path) -> tuple[Path, str]:
    return folder / "model", "there is no file or folder"


CASES = (
    truncated_safetensors,
    truncated_single_file,
    malicious_pickle,
    malicious_altclip,
    malicious_single_file,
    stable_diffusion_xl,
    stable_diffusion_folder,
    a_bert,
    no_model_index,
    nothing,
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(case: Callable[[Path], tuple[Path, str]], command: str, tmp_path: Path, capfd) -> None:
    model, said = case(tmp_path)
    capfd.readouterr()
    assert main(COMMANDS[command](str(model), tmp_path)) == 2
    printed = capfd.readouterr()
    ours = [line for line in printed.err.splitlines() if line.startswith("altdiffusion: ")]
    assert len(ours) == 1, printed.err
    assert said in ours[0]
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not (tmp_path / "exploited").exists()
    assert not (tmp_path / "out").exists()


def test_generate_with_a_single_file_and_its_own_scorer(tmp_path: Path, capsys) -> None:
    configs = replicas.config_folder("m9", tmp_path / "configs")
    source = replicas.write(replicas.ldm_tensors("m9", configs, flagai=True), tmp_path / "a.safetensors")
    folder = tmp_path / "folder"
    assert main(["convert", str(source), str(folder), "--config", str(configs)]) == 0
    capsys.readouterr()
    size = ["--height", "64", "--width", "64", "--steps", "2", "--num-images", "2", "--json"]
    assert main(["generate", "猫", "--model", str(folder), "--output", str(tmp_path / "out"), *size]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2]
    file = tmp_path / "emoji.safetensors"
    assert main(["convert", "emoji-m18", str(file)]) == 0
    capsys.readouterr()
    assert main(["generate", "猫", "--model", str(file), "--output", str(tmp_path / "again"), *size[4:]]) == 0
    printed = capsys.readouterr()
    assert "brings no judge" in printed.err
    assert len(printed.out.splitlines()) == 2
