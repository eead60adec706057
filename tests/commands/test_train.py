"""The command line of training: settings, YAML, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import yaml

from altdiffusion_clip.cli import main
from tests.training.worlds import write_parallel, write_student, write_teacher


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    teacher, student = write_teacher(tmp_path / "teacher"), write_student(tmp_path / "student")
    data = write_parallel(tmp_path / "parallel.jsonl")
    return ["--teacher", str(teacher), "--student", str(student), "--data", str(data)]


def test_a_run_is_repeated_from_its_yaml(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    short = ["--steps", "3", "--batch-size", "8", "--weights", "zh=2", "--languages", "zh", "ru"]
    assert main(["train", "distill", *models, *short, "--output", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "model")
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["weights"] == {"zh": 2.0}
    assert settings["languages"] == ["zh", "ru"]
    again = tmp_path / "again"
    assert main(["train", "distill", "--config", str(run / "config.yaml"), "--output", str(again), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": str(again / "model")}
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, again)]
    assert weights[0] == weights[1]


def test_a_dry_run_prints_what_it_would_take(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "distill", *models, "--output", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"steps", "tokens", "memory_gb", "epochs", "trained_parameters"} <= figures.keys()
    assert main(["train", "distill", *models, "--output", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "trained parameters" in capsys.readouterr().out
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_run_that_stops_in_time_says_so_and_goes_on(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "distill", *models, "--steps", "2", "--batch-size", "8", "--output", str(tmp_path / "run")]
    assert main([*command, "--stop-after-seconds", "0.000001"]) == 1
    assert "stopped after step 1 of 2; run the same command again to continue" in capsys.readouterr().err
    assert main(command) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill"], "train distill needs --data"),
        (["dreambooth", "--instance-prompt", " "], "give --instance-prompt"),
        (["lora", "--rank", "0"], "rank must be at least 1"),
        (["align", "--pure-noise", "40"], "pure_noise is a share and must be from 0 to 1, not 40.0"),
        (["lora", "--caption-dropout", "-0.1"], "caption_dropout is a share and must be from 0 to 1, not -0.1"),
        (["distill", "--config", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
        (["align", "--model", "/nowhere", "--data", "/nowhere"], "there is no /nowhere, which is to be"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments, "--output", str(tmp_path / "run")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("altdiffusion:")]
    assert len(errors) == 1
    assert message in errors[0]


def test_a_weight_that_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "distill", "--weights", "de"])
    assert "'de' is not KEY=NUMBER, such as de=4" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["distill", "contrastive", "align", "dreambooth", "lora", "add-language"])
def test_every_stage_has_help(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", stage, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "--mixed-precision" in text
    assert "--dry-run" in text
