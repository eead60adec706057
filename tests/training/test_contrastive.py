import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.configs import ContrastiveConfig
from altdiffusion_clip.training.contrastive import contrastive, load_scorer
from altdiffusion_clip.training.estimate import Estimate
from altdiffusion_clip.training.metrics import read_metrics
from tests.training.worlds import LANGUAGES, write_pictures, write_student, write_teacher


@pytest.fixture
def config(tmp_path: Path) -> ContrastiveConfig:
    return ContrastiveConfig(
        output=tmp_path / "run",
        teacher=str(write_teacher(tmp_path / "teacher")),
        student=str(write_student(tmp_path / "student")),
        data=[write_pictures(tmp_path / "pictures")],
        steps=200,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=10,
    )


def test_captions_learn_their_pictures_and_the_vision_half_stays(config: ContrastiveConfig) -> None:
    before = load_scorer(config)[0].state_dict()
    folder = contrastive(replace(config, batch_size=32, validation=config.data, validate_every=100))
    assert isinstance(folder, Path)
    after = AltCLIPScorer.from_pretrained(folder)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(("vision_model", "visual_projection")), name
    lines = [line for line in read_metrics(config.output) if "r1_en" in line]
    assert [line["step"] for line in lines] == [100, 200]
    for code in LANGUAGES:
        assert lines[-1][f"r1_{code}"] > 40, lines[-1]  # two pictures have each caption
    losses = [line["loss"] for line in read_metrics(config.output) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_features_are_computed_once(config: ContrastiveConfig) -> None:
    contrastive(replace(config, steps=2))
    features = config.output / "data" / "pictures" / "features.bin"
    scorer, _ = load_scorer(config)
    with torch.no_grad():
        paths = sorted((config.data[0]).glob("*.png"), key=lambda path: int(path.stem))
        expected, _ = scorer.encode_images(list(paths))
    stored = torch.from_numpy(np.fromfile(features, np.float16).reshape(len(paths), -1)).float()
    torch.testing.assert_close(torch.nn.functional.normalize(stored, dim=1), expected, atol=2e-3, rtol=0)


def test_pictures_may_be_looked_at_anew(config: ContrastiveConfig) -> None:
    contrastive(replace(config, steps=60, augment=True))
    assert not (config.output / "data" / "pictures" / "features.bin").exists()
    losses = [line["loss"] for line in read_metrics(config.output)]
    assert losses[-1] < losses[0]


def test_small_memory_gives_the_same_as_the_large_batch(config: ContrastiveConfig, tmp_path: Path) -> None:
    short = replace(config, steps=12, log_every=1, learning_rate=1e-3)
    contrastive(short)
    parts = replace(short, output=tmp_path / "parts", gradient_accumulation_steps=4)
    contrastive(parts)
    losses = [torch.tensor([line["loss"] for line in read_metrics(c.output)]) for c in (short, parts)]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=0)
    whole, cached = (AltCLIPScorer.from_pretrained(c.output / "model").state_dict() for c in (short, parts))
    for name in whole:
        torch.testing.assert_close(whole[name], cached[name], atol=1e-5, rtol=0, msg=name)


def test_a_whole_altclip_goes_on(config: ContrastiveConfig, tmp_path: Path) -> None:
    first = contrastive(replace(config, steps=2))
    again = replace(config, output=tmp_path / "again", teacher="", student=str(first), steps=2)
    assert AltCLIPScorer.from_pretrained(str(contrastive(again))).processor is not None


@pytest.mark.parametrize("is_m18", [False, True])
def test_scores_are_trained_without_touching_what_a_unet_reads(
    config: ContrastiveConfig, tmp_path: Path, is_m18: bool
) -> None:
    student = write_student(tmp_path / "other student", pre_transformation=is_m18)
    first = contrastive(replace(config, student=str(student), steps=2))
    again = replace(config, output=tmp_path / "again", teacher="", student=str(first), keep_conditioning=True, steps=5)
    second = contrastive(again)
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    said = []
    for folder in (first, second):
        assert isinstance(folder, Path)
        scorer = AltCLIPScorer.from_pretrained(folder).eval()
        encoder = scorer.text_model
        if is_m18:  # an AltCLIP has no place for the second projection
            encoder = RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder").eval()
        said.append((encoder(ids).projection_state, scorer.get_text_features(ids)))
    assert torch.equal(said[0][0], said[1][0])
    assert not torch.allclose(said[0][1], said[1][1])


def test_the_temperature_is_clamped_and_trained(config: ContrastiveConfig) -> None:
    scorer = AltCLIPScorer.from_pretrained(contrastive(replace(config, steps=20)))
    assert scorer.logit_scale.item() != pytest.approx(scorer.config.logit_scale_init_value, abs=1e-5)


def test_a_dry_run(config: ContrastiveConfig) -> None:
    counted = contrastive(replace(config, dry_run=True))
    assert isinstance(counted, Estimate)
    assert counted.examples == 32
    assert counted.frozen_parameters > 0
    assert not (config.output / "config.yaml").exists()


def test_a_student_without_a_teacher(config: ContrastiveConfig) -> None:
    with pytest.raises(UserError, match="give --teacher, the CLIP whose vision tower"):
        contrastive(replace(config, teacher=""))


def test_validation_without_one_of_the_languages(
    config: ContrastiveConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (config.data[0] / "captions.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["image"] = str(config.data[0] / row["image"])
        row["captions"] = {code: said for code, said in row["captions"].items() if code == "en"}
    (tmp_path / "held-out.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    contrastive(replace(config, steps=2, validation=[tmp_path / "held-out.jsonl"]))
    measured = read_metrics(config.output)[-1]
    assert "r1_en" in measured
    assert not [name for name in measured if name.startswith("r1_") and name != "r1_en"]
    assert "validation data have no captions in" in caplog.text
