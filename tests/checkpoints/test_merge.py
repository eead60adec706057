from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints import ldm
from altdiffusion_clip.checkpoints.convert import convert
from altdiffusion_clip.checkpoints.layouts import ldm_name, open_checkpoint
from altdiffusion_clip.checkpoints.merge import merge, reads_text
from altdiffusion_clip.cli import main
from altdiffusion_clip.errors import CheckpointError, UserError
from tests.conftest import PUBLISHED

ALT = PUBLISHED / "alt-diffusion-m9-tiny"


def moved(folder: Path, seed: int, single_file: bool = False) -> Path:
    """A Stable Diffusion of the same shapes as the AltDiffusion, elsewhere."""
    pipe = AltDiffusionPipeline.from_pretrained(ALT, safety_checker=None)
    torch.manual_seed(seed)
    with torch.no_grad():
        for part in (pipe.unet, pipe.vae):
            for parameter in part.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )
    if not single_file:
        StableDiffusionPipeline(
            pipe.vae, text, None, pipe.unet, pipe.scheduler, None, None, requires_safety_checker=False
        ).save_pretrained(folder)
        return folder
    configs = open_checkpoint(ALT).configs
    tensors = {f"cond_stage_model.transformer.{k}": v.contiguous() for k, v in text.state_dict().items()}
    for part, prefix, module in (("unet", ldm.UNET, pipe.unet), ("vae", ldm.VAE, pipe.vae)):
        rename = ldm_name(part, configs[part])
        for name, tensor in module.state_dict().items():
            renamed = rename(name)
            if part == "vae" and ldm.is_vae_attention_matrix(renamed):
                tensor = tensor[:, :, None, None]
            tensors[prefix + renamed] = tensor.contiguous()
    save_file(tensors, folder.with_suffix(".safetensors"))
    return folder.with_suffix(".safetensors")


def unet_of(folder: Path) -> dict[str, torch.Tensor]:
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base, what others made of it, and the same as a single file."""
    folder = tmp_path_factory.mktemp("models")
    return moved(folder / "base", 1), moved(folder / "target", 2), moved(folder / "target-file", 2, single_file=True)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_difference_is_added(strength: float, models, tmp_path: Path) -> None:
    base, target, _ = models
    merge(base, ALT, target, tmp_path / "out", strength=strength)
    ours, alt, theirs, origin = (unet_of(folder) for folder in (tmp_path / "out", ALT, target, base))
    for name in ours:
        expected = theirs[name] + strength * (alt[name] - origin[name])
        torch.testing.assert_close(ours[name], expected, atol=1e-6, rtol=0, msg=name)
    pipe = AltDiffusionPipeline.from_pretrained(tmp_path / "out")
    reference = AltDiffusionPipeline.from_pretrained(ALT, safety_checker=None)
    for name, tensor in reference.text_encoder.state_dict().items():
        assert torch.equal(tensor, pipe.text_encoder.state_dict()[name]), name
    vae = load_file(target / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(vae[name], tensor) for name, tensor in pipe.vae.state_dict().items()), "the target's"
    pipe.set_progress_bar_config(disable=True)
    assert pipe("猫", num_inference_steps=1, height=32, width=32).images[0].size == (32, 32)


def test_keys_and_values_alone(models, tmp_path: Path) -> None:
    base, target, _ = models
    merge(base, ALT, target, tmp_path / "out", what="keys-and-values")
    ours, theirs = unet_of(tmp_path / "out"), unet_of(target)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]) != reads_text(name), name


def test_single_files(models, tmp_path: Path) -> None:
    base, target, target_file = models
    convert(ALT, tmp_path / "alt.safetensors")
    merge(base, ALT, target, tmp_path / "folder")
    merge(base, tmp_path / "alt.safetensors", target_file, tmp_path / "file.safetensors")
    ours = open_checkpoint(tmp_path / "file.safetensors").tensors
    for part in ("unet", "vae"):
        folder = open_checkpoint(tmp_path / "folder").tensors[part]
        assert set(ours[part]) == set(folder)
        for name in folder:
            got = ours[part][name].reshape(folder.shape(name))
            torch.testing.assert_close(got, folder[name], atol=1e-6, rtol=0, msg=f"{part} {name}")
    assert AltDiffusionPipeline.from_pretrained(tmp_path / "file.safetensors").text_encoder is not None


def test_halves_are_added_in_full_precision(models, tmp_path: Path) -> None:
    base, target, _ = models
    merge(base, ALT, target, tmp_path / "half", dtype=torch.float16)
    merge(base, ALT, target, tmp_path / "full")
    half = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    full = load_file(tmp_path / "full" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(half[name], full[name].half()) for name in full)


class TestMistakes:
    def test_models_without_a_common_base(self, models, tmp_path: Path) -> None:
        base, _, _ = models
        with pytest.raises(CheckpointError, match="they have no common base"):
            merge(base, ALT, PUBLISHED / "alt-diffusion-m18-tiny", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_altclip_cannot_draw(self, models, tmp_path: Path) -> None:
        base, target, _ = models
        with pytest.raises(CheckpointError, match="is an AltCLIP without a UNet"):
            merge(base, PUBLISHED / "alt-clip-m9-tiny", target, tmp_path / "out")

    def test_something_that_is_no_stable_diffusion(self, models, tmp_path: Path) -> None:
        base, _, _ = models
        with pytest.raises(CheckpointError, match=r"has no unet/config\.json; give a Stable Diffusion"):
            merge(base, ALT, tmp_path, tmp_path / "out")
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
        with pytest.raises(CheckpointError, match="has no UNet of Stable Diffusion's"):
            merge(base, ALT, tmp_path / "a.safetensors", tmp_path / "out")

    def test_what_is_not_known(self, models, tmp_path: Path) -> None:
        base, target, _ = models
        with pytest.raises(UserError, match="choose one of all, keys-and-values"):
            merge(base, ALT, target, tmp_path / "out", what="values")

    def test_the_command(self, models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        base, target, _ = models
        places = ["--base", str(base), "--alt", str(ALT), "--target", str(target)]
        assert main(["merge", *places, str(tmp_path / "out"), "--strength", "0.7"]) == 0
        assert str(tmp_path / "out") in capsys.readouterr().out
        assert main(["merge", *places, str(tmp_path / "out")]) == 2
        assert "exists already" in capsys.readouterr().err
        assert main(["merge", *places[:-1], "/nowhere", str(tmp_path / "b")]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len([line for line in error if line.startswith("altdiffusion:")]) == 1
