import json
from pathlib import Path

import pytest
import torch

from altdiffusion_clip.cli import main
from tests.checkpoints import replicas


def test_emoji_m18(capsys) -> None:
    assert main(["inspect", "emoji-m18", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    report = json.loads(printed.out)
    assert report["model"] == "m18"
    assert len(report["languages"].split()) == 18
    assert report["is_whole"] is True
    assert [part["name"] for part in report["parts"]] == ["unet", "vae", "text_encoder", "altclip"]
    assert main(["inspect", "emoji-m18"]) == 0
    assert "whole      nothing is missing" in capsys.readouterr().out


@pytest.mark.parametrize(("m", "languages"), [("m2", 2), ("m9", 9), ("m18", 18)])
def test_altclips(m: str, languages: int, published: Path, capsys) -> None:
    assert main(["inspect", str(published / f"alt-clip-{m}-tiny"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["languages"].split()) == languages
    assert report["layout"] == "AltCLIP, a folder in transformers' layout"


@pytest.mark.parametrize(("m", "code"), [("m9", 0), ("m2", 1)])
def test_whether_a_tower_matches_anothers(m: str, code: int, published: Path, capsys) -> None:
    pipeline, altclip = published / "alt-diffusion-m9-tiny", published / f"alt-clip-{m}-tiny"
    for one, other in ((pipeline, altclip), (altclip, pipeline)):
        assert main(["inspect", str(one), "--against", str(other)]) == code
        said = "is the same as" if code == 0 else "differs at roberta.embeddings.word_embeddings.weight from"
        assert f"tower      {said} that of {other}" in capsys.readouterr().out


def test_towers_of_other_dtypes_are_compared_in_the_coarser(published: Path, tmp_path: Path, capsys) -> None:
    half = tmp_path / "half"
    assert main(["convert", str(published / "alt-clip-m9-tiny"), str(half), "--dtype", "float16"]) == 0
    assert main(["inspect", str(half), "--against", str(published / "alt-clip-m9-tiny")]) == 0


def test_what_is_missing_and_surplus(tmp_path: Path, capsys) -> None:
    configs = replicas.config_folder("m9", tmp_path / "configs")
    tensors = replicas.ldm_tensors("m9", configs, ema=True)
    del tensors["model.diffusion_model.time_embed.0.weight"]
    tensors["first_stage_model.quant_conv.bias"] = torch.zeros(9)
    file = replicas.write(tensors, tmp_path / "a.ckpt")
    assert main(["inspect", str(file), "--config", str(configs), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["is_whole"] is False
    assert report["has_ema"] is True
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["unet"]["missing"] == ["time_embedding.linear_1.weight"]
    assert parts["vae"]["misshapen"] == ["quant_conv.bias: (9,), not (8,)"]
    assert "roberta.pooler.dense.bias" in parts["text_encoder"]["surplus"]
    assert main(["inspect", str(file), "--config", str(configs)]) == 1
    printed = capsys.readouterr().out
    assert "missing    unet: time_embedding.linear_1.weight" in printed
    assert "nothing is missing" not in printed
