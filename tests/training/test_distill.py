import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.configs import DistillConfig
from altdiffusion_clip.training.distill import distill, teacher_embeds
from altdiffusion_clip.training.estimate import Estimate
from altdiffusion_clip.training.loop import Stopped
from altdiffusion_clip.training.metrics import read_metrics
from altdiffusion_clip.training.models import load_student, load_teacher_text
from tests.training.worlds import LANGUAGES, write_parallel, write_student, write_teacher


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        output=tmp_path / "run",
        teacher=str(write_teacher(tmp_path / "teacher")),
        student=str(write_student(tmp_path / "student")),
        data=[write_parallel(tmp_path / "parallel.jsonl")],
        steps=250,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=10,
    )


def test_a_student_learns_its_teacher(config: DistillConfig) -> None:
    folder = distill(replace(config, steps=500, validation=config.data, validate_every=100))
    assert isinstance(folder, Path)
    student = RobertaSeriesModelWithTransformation.from_pretrained(folder).eval()
    teacher, reader = load_teacher_text(config.teacher)
    target = teacher_embeds(teacher, reader, ["cat", "dog", "fox"])[:, 0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for said in (["cat", "dog", "fox"], ["猫", "狗", "狐狸"], ["кошка", "собака", "лиса"]):
            pooled = student(*tokenize(tokenizer, said)).pooler_output
            assert (pooled - target).square().mean() < 0.5 * target.var(0).mean(), said
    lines = [line for line in read_metrics(config.output) if "r1_zh" in line]
    assert [line["step"] for line in lines] == [100, 200, 300, 400, 500]
    assert {f"r1_{code}" for code in LANGUAGES} <= lines[0].keys()
    assert lines[-1]["r1_zh"] > 25, "one of 24 by chance, and three ways to say each"


def test_the_teachers_embedding_is_its_eos_state(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path / "teacher")
    teacher, tokenizer = load_teacher_text(str(folder))
    clip = CLIPModel.from_pretrained(folder).eval()
    ids = tokenizer(["a cat", "a much longer sentence about a dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        features = clip.get_text_features(**ids).pooler_output
        read = teacher_embeds(teacher, tokenizer, ["a cat", "a much longer sentence about a dog"], layers=2)
        # What Stable Diffusion 2 conditions on: the tower without its last layer.
        shorter = CLIPModel.from_pretrained(folder).eval().text_model
        shorter.encoder.layers = shorter.encoder.layers[:-1]
        before_last = shorter(**ids).pooler_output
    torch.testing.assert_close(clip.text_projection(read[:, 0]), features, atol=1e-5, rtol=0)
    torch.testing.assert_close(read[:, 1], before_last, atol=1e-5, rtol=0)


def test_the_teacher_reads_each_english_sentence_once(config: DistillConfig) -> None:
    short = replace(config, steps=2)
    distill(short)
    corpus = config.output / "data" / "parallel"
    english = {line for row in map(json.loads, config.data[0].read_text().splitlines()) for line in row["en"]}
    assert np.fromfile(corpus / "teacher.bin", np.float16).size == len(english) * 32
    before = (corpus / "teacher.bin").stat().st_mtime_ns
    distill(replace(short))
    assert (corpus / "teacher.bin").stat().st_mtime_ns == before


def test_a_dry_run_counts_and_starts_nothing(config: DistillConfig) -> None:
    counted = distill(replace(config, dry_run=True))
    assert isinstance(counted, Estimate)
    student, _ = load_student(config.student, 32)
    assert counted.trained_parameters == sum(p.numel() for p in student.parameters())
    assert counted.steps == 250
    assert counted.epochs == pytest.approx(250 * 16 / counted.examples, abs=0.01)
    assert counted.tokens > counted.examples * 3
    assert not (config.output / "checkpoint.pt").exists()
    assert not (config.output / "config.yaml").exists()


def test_a_dry_run_of_a_run_that_was_begun_says_the_hours_that_remain(config: DistillConfig) -> None:
    begun = replace(config, steps=100, log_every=1, stop_after_seconds=1e-3)
    with pytest.raises(Stopped):
        distill(begun)
    (line,) = read_metrics(config.output)
    counted = distill(replace(begun, steps=1_000_001, dry_run=True))
    assert isinstance(counted, Estimate)
    assert counted.hours == pytest.approx(1e6 * 16 / line["examples_per_second"] / 3600, abs=0.01)


def test_a_dry_run_of_a_new_run_knows_no_hours(config: DistillConfig) -> None:
    counted = distill(replace(config, dry_run=True))
    assert isinstance(counted, Estimate)
    assert counted.hours is None


class TestStudents:
    def test_a_plain_xlm_r_gets_a_new_projection(self, tmp_path: Path) -> None:
        from transformers import XLMRobertaConfig, XLMRobertaModel

        folder = write_student(tmp_path / "student")
        body = XLMRobertaModel(
            XLMRobertaConfig(vocab_size=4100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
        )
        body.save_pretrained(folder)
        student, _ = load_student(str(folder), project_dim=24)
        assert student.config.project_dim == 24
        torch.testing.assert_close(
            student.roberta.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight
        )

    def test_m18_learns_both_projections(self, config: DistillConfig, published: Path, tmp_path: Path) -> None:
        place = published / "alt-diffusion-m18-tiny"
        wide = write_teacher(tmp_path / "wide", width=64)
        folder = distill(replace(config, steps=2, teacher=str(wide), student=str(place)))
        before, after = (
            RobertaSeriesModelWithTransformation.from_pretrained(path) for path in (place / "text_encoder", str(folder))
        )
        for name in ("transformation", "transformation_pre"):
            assert not torch.equal(getattr(before, name).weight, getattr(after, name).weight)

    def test_a_plain_xlm_r_becomes_an_m18(self, config: DistillConfig) -> None:
        folder = distill(replace(config, pre_transformation=True, steps=600))
        student = RobertaSeriesModelWithTransformation.from_pretrained(folder).eval()
        assert student.config.has_pre_transformation
        teacher, reader = load_teacher_text(config.teacher)
        said = ["cat", "dog", "fox"]
        target = teacher_embeds(teacher, reader, said, layers=2)[:, 1]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        with torch.no_grad():
            conditioning = student(*tokenize(tokenizer, said)).projection_state[:, 0]
        assert (conditioning - target).square().mean() < 0.5 * target.var(0).mean()

    def test_it_learns_without_dropout(self, tmp_path: Path) -> None:
        student, _ = load_student(str(write_student(tmp_path / "student")), project_dim=32)
        student.train()
        ids = torch.tensor([[0, 9, 11, 2]])
        assert torch.equal(student(ids).pooler_output, student(ids).pooler_output)

    def test_a_teacher_of_another_width(self, config: DistillConfig, tmp_path: Path) -> None:
        folder = distill(replace(config, steps=1))
        wide = write_teacher(tmp_path / "wide", width=48)
        again = replace(config, output=tmp_path / "again", teacher=str(wide), student=str(folder))
        with pytest.raises(UserError, match="projects to 32 numbers and the teacher embeds into 48; choose a teacher"):
            distill(again)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("teacher", "/nowhere/clip", "there is no /nowhere/clip, which is to be the teacher"),
            ("student", "/nowhere/xlmr", "there is no /nowhere/xlmr, which is to be the student"),
        ],
    )
    def test_models_that_are_not_there(self, field: str, value: str, message: str, config: DistillConfig) -> None:
        with pytest.raises(UserError, match=message):
            distill(replace(config, **{field: value}))

    def test_a_student_of_another_kind(self, config: DistillConfig) -> None:
        with pytest.raises(UserError, match="is a clip; the student is an XLM-R"):
            distill(replace(config, student=config.teacher))


class TestExtending:
    def test_a_finished_run_goes_on_with_more_steps(self, config: DistillConfig) -> None:
        short = replace(config, steps=4, log_every=1, ema_decay=0.5)
        distill(short)
        weights = (config.output / "model" / "model.safetensors").read_bytes()
        distill(replace(short, steps=6))
        assert [line["step"] for line in read_metrics(config.output)] == [1, 2, 3, 4, 5, 6]
        assert (config.output / "model-4-steps" / "model.safetensors").read_bytes() == weights, "what it had made"
        assert (config.output / "model" / "model.safetensors").read_bytes() != weights
        with pytest.raises(UserError, match="holds a run with steps: 6, and not 4"):
            distill(short)

    def test_a_stop_while_it_is_extended_loses_nothing(self, config: DistillConfig) -> None:
        short = replace(config, steps=4, log_every=1)
        distill(short)
        (config.output / "model").rename(config.output / "model-4-steps")  # and then it was killed
        distill(replace(short, steps=5))
        assert read_metrics(config.output)[-1]["step"] == 5

    def test_a_run_that_is_not_finished_keeps_its_schedule(self, config: DistillConfig) -> None:
        with pytest.raises(Stopped):
            distill(replace(config, steps=50, checkpoint_seconds=0.0, stop_after_seconds=1e-9))
        with pytest.raises(UserError, match="more steps when it is finished"):
            distill(replace(config, steps=60))
