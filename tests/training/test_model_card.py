"""The card of a trained model."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.configs import AlignConfig, DistillConfig
from altdiffusion_clip.training.model_card import card_text, push_to_hub
from altdiffusion_clip.training.stages import STAGES
from tests.training.worlds import write_parallel, write_student, write_teacher


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    return DistillConfig(
        output=tmp_path / "my-run",
        teacher=str(write_teacher(tmp_path / "teacher")),
        student=str(write_student(tmp_path / "student")),
        data=[write_parallel(tmp_path / "parallel.jsonl")],
        validation=[write_parallel(tmp_path / "held-out.jsonl")],
        steps=2,
        batch_size=4,
        log_every=1,
    )


def test_it_says_what_the_model_is_and_what_was_measured(config: DistillConfig, tmp_path: Path) -> None:
    folder = STAGES["distill"].run(config)
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.language == ["en", "ru", "zh"]
    for told in (
        "# my-run",
        "parallel.jsonl",
        "| r1_zh |",
        "| steps | 2 |",
        "torch 2.",
        "made from student, teacher",
        "| validation | held-out",
    ):
        assert told in card.content, told
    assert str(tmp_path) not in card.content, "no folder of this machine"
    code = card.text.split("```python\n")[1].split("```")[0].replace('"my-run"', repr(str(folder)))
    names: dict[str, object] = {}
    exec(code, names)
    assert type(names["encoder"]).__name__ == "RobertaSeriesModelWithTransformation"


def test_what_is_published_is_linked_with_its_licence(tmp_path: Path) -> None:
    config = AlignConfig(output=tmp_path / "run", model="BAAI/AltDiffusion-m9", data=["/data/{00..99}.tar"])
    card = ModelCard(card_text(config))
    assert card.data.base_model == ["BAAI/AltDiffusion-m9"]
    assert card.data.license == "creativeml-openrail-m"
    assert "CreativeML OpenRAIL-M, which applies to this model too" in card.text


def test_an_upload_that_fails_is_one_line_and_the_model_stays(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot upload to me/mine .*; the model is in .*the same command again"):
        STAGES["distill"].run(replace(config, push_to_hub="me/mine"))
    assert (config.output / "model" / "README.md").is_file()
    with pytest.raises(UserError, match="cannot upload to not/a/name"):
        push_to_hub(config.output / "model", "not/a/name")
