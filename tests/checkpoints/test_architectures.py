"""The full-size m2, m9 and m18: nothing is allocated, only names and shapes are compared."""

import json
import struct
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as reference
from transformers import AltCLIPConfig, AltCLIPModel

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.checkpoints.altclip import published_name
from altdiffusion_clip.checkpoints.architectures import CONFIGS, expected_shapes, model_name
from altdiffusion_clip.checkpoints.inspection import inspect
from altdiffusion_clip.checkpoints.layouts import Layout, open_checkpoint, read_json
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from tests.checkpoints import replicas

SIZES = ("m2-m9", "m18")

PARAMETERS = {
    "m2-m9": {"unet": 859_520_964, "vae": 83_653_863},
    "m18": {"unet": 865_910_724, "vae": 83_653_863},
}
"""Of Stable Diffusion 1.4 and 2.1-base, as their model cards and papers have them."""


def config_of(size: str, part: str) -> dict:
    return read_json(CONFIGS / size / ("scorer" if part == "altclip" else part) / "config.json")


@pytest.mark.parametrize("size", SIZES)
def test_unet_and_autoencoder_are_stable_diffusions(size: str) -> None:
    for part, expected in PARAMETERS[size].items():
        assert sum(shape.numel() for shape in expected_shapes(part, config_of(size, part)).values()) == expected, part


@pytest.mark.parametrize("size", SIZES)
def test_the_text_encoder_is_that_of_the_reference_class(size: str) -> None:
    config = config_of(size, "text_encoder")
    with torch.device("meta"):
        theirs = reference.RobertaSeriesModelWithTransformation(reference.RobertaSeriesConfig(**config)).state_dict()
    ours = expected_shapes("text_encoder", config)
    expected = {name: tensor.shape for name, tensor in theirs.items() if ".pooler." not in name}
    if size == "m2-m9":  # theirs drops what the pooled reading needs
        expected |= {f"pre_LN.{name}": torch.Size([1024]) for name in ("weight", "bias")}
    assert ours == expected
    assert config["project_dim"] == config_of(size, "unet")["cross_attention_dim"]


@pytest.mark.parametrize("size", SIZES)
def test_the_scorer_is_transformers_altclip(size: str) -> None:
    config = config_of(size, "altclip")
    with torch.device("meta"):
        ours = AltCLIPScorer(AltCLIPConfig(**config)).state_dict()
        theirs = AltCLIPModel(AltCLIPConfig(**config)).state_dict()
    assert {n: t.shape for n, t in ours.items()} == {published_name(n): t.shape for n, t in theirs.items()}
    tower = {name.removeprefix("text_model.") for name in ours if name.startswith("text_model.")}
    body = expected_shapes("text_encoder", config_of(size, "text_encoder")).keys()
    assert tower == {name for name in body if not name.startswith("transformation_pre.")}


def hollow_file(path: Path, shapes: dict[str, torch.Size]) -> Path:
    """A safetensors file of full size in which everything is a hole, so that it takes no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape.numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("kind", ["webui", "flagai"])
@pytest.mark.parametrize("size", SIZES)
def test_full_size_single_files_need_no_configuration(size: str, kind: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        unet = replicas.LDMUNet(config_of(size, "unet")).state_dict()
        vae = replicas.LDMAutoencoder(config_of(size, "vae")).state_dict()
        clip = AltCLIPModel(AltCLIPConfig(**config_of(size, "altclip"))).state_dict()
    shapes = {f"model.diffusion_model.{n}": t.shape for n, t in unet.items()}
    shapes |= {f"first_stage_model.{n}": t.shape for n, t in vae.items()}
    clip_shapes = {published_name(name): tensor.shape for name, tensor in clip.items()}
    if size == "m18":
        pre = "text_model.transformation_pre"
        clip_shapes |= {f"{pre}.weight": torch.Size([1024, 1024]), f"{pre}.bias": torch.Size([1024])}
    for name, shape in clip_shapes.items():
        if kind == "flagai":
            shapes[f"cond_stage_model.{name}"] = shape
        elif name.startswith("text_model."):
            shapes[f"cond_stage_model.{name.removeprefix('text_model.')}"] = shape
    name = "altdiffusion-m9.safetensors" if size == "m2-m9" else "a.safetensors"
    path = hollow_file(tmp_path / name, shapes)

    checkpoint = open_checkpoint(path)
    assert checkpoint.layout is (Layout.FLAGAI if kind == "flagai" else Layout.WEBUI)
    assert checkpoint.config_folder == CONFIGS / size
    report = inspect(checkpoint)
    assert report.is_whole
    assert not [name for part in report.parts for name in part.surplus if "transformation_pre" not in name]
    assert report.model == ("m9" if size == "m2-m9" else "m18")
    if kind == "webui":  # 6.0 GB, as the published one
        assert path.stat().st_size == pytest.approx(6.0e9, rel=0.01)


@pytest.mark.parametrize(
    ("hint", "model", "spoken"),
    [
        ("AltDiffusion-m9", "m9", 9),
        ("BAAI/AltCLIP-m2", "m2", 2),
        ("x-m18", "m18", 18),
        ("AltDiffusion", "m2 or m9", None),
    ],
)
def test_m2_and_m9_are_told_by_what_they_are_called(hint: str, model: str, spoken: int | None, published: Path) -> None:
    from altdiffusion_clip.checkpoints.architectures import languages

    tensors = CheckpointTensors.in_folder(published / "alt-diffusion-m9-tiny" / "text_encoder")
    assert model_name(tensors, hint) == model
    if spoken:
        assert len(languages(model).split()) == spoken
    else:
        assert "(m2) or" in languages(model)
