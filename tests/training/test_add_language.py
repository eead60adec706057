"""German for a small student that knows three languages, and for emoji-m18 in benchmarks/add_language.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.training.add_language import add_language
from altdiffusion_clip.training.configs import AddLanguageConfig
from altdiffusion_clip.training.metrics import read_metrics
from altdiffusion_clip.training.models import load_altclip, write_altclip
from tests.training.worlds import write_parallel

EMOJI = "emoji-m18"


@pytest.fixture
def config(tmp_path: Path) -> AddLanguageConfig:
    return AddLanguageConfig(
        output=tmp_path / "run",
        model=EMOJI,
        data=[write_parallel(tmp_path / "german.jsonl", ("en", "de"))],
        replay=[write_parallel(tmp_path / "old.jsonl", ("en", "zh", "ru"))],
        steps=60,
        batch_size=16,
        learning_rate=5e-4,
        warmup_steps=10,
    )


@torch.no_grad()
def nearest(scorer: AltCLIPScorer, said: list[str], english: list[str]) -> list[int]:
    return (scorer.encode_texts(said) @ scorer.encode_texts(english).T).argmax(1).tolist()


@pytest.mark.full
def test_german_is_learned_and_the_rest_kept(config: AddLanguageConfig) -> None:
    folder = add_language(replace(config, steps=120, validation=config.data, validate_every=30))
    before, after = (AltCLIPScorer.from_pretrained(str(name)).eval() for name in (EMOJI, folder))
    german, english = ["katze", "hund", "kuh", "schwein", "pferd"], ["cat", "dog", "cow", "pig", "horse"]
    assert nearest(after, german, english) == [0, 1, 2, 3, 4]
    measured = [line for line in read_metrics(config.output) if "r1_de" in line]
    assert measured[-1]["r1_de"] > measured[0]["r1_de"] + 20, measured
    tokenizer = before.processor.tokenizer
    with torch.no_grad():
        for said in ("猫", "собака", "a cow"):
            states = [scorer.text_model(*tokenize(tokenizer, [said])).projection_state for scorer in (before, after)]
            moved = (states[0] - states[1]).square().mean() / states[0].var()
            assert moved < 0.1, said


def test_every_part_has_the_same_new_text_encoder(config: AddLanguageConfig) -> None:
    folder = add_language(replace(config, steps=2))
    pipe = AltDiffusionPipeline.from_pretrained(folder)
    AltCLIPScorer.from_pipeline(pipe)  # which compares the two
    before = AltDiffusionPipeline.from_pretrained(EMOJI)
    assert not torch.equal(pipe.text_encoder.transformation.weight, before.text_encoder.transformation.weight)
    assert torch.equal(pipe.unet.conv_in.weight, before.unet.conv_in.weight)


def test_an_altclip_alone(config: AddLanguageConfig, published: Path) -> None:
    folder = add_language(replace(config, steps=1, model=str(published / "alt-clip-m9-tiny")))
    assert AltCLIPScorer.from_pretrained(str(folder)).processor is not None


def test_an_altclip_of_m18_keeps_the_text_encoder_beside_it(config: AddLanguageConfig, tmp_path: Path) -> None:
    write_altclip(load_altclip(EMOJI)[0], tmp_path / "stage 2")
    folder = add_language(replace(config, steps=1, model=str(tmp_path / "stage 2")))
    encoder = load_altclip(str(folder))[0].text_model
    assert encoder.transformation_pre is not None
    for name, tensor in AltCLIPScorer.from_pretrained(str(folder)).text_model.state_dict().items():
        assert torch.equal(tensor, encoder.state_dict()[name]), name


@pytest.mark.parametrize("m", ["m9", "m18"])
def test_a_published_pipeline_without_a_scorer(m: str, config: AddLanguageConfig, published: Path) -> None:
    place = published / f"alt-diffusion-{m}-tiny"
    if m == "m9" and AltDiffusionPipeline.from_pretrained(place).text_encoder.pre_LN is None:
        with pytest.raises(UserError, match="has no pre_LN, which the pooled reading needs; put its AltCLIP into"):
            add_language(replace(config, steps=1, model=str(place)))
        return
    folder = add_language(replace(config, steps=1, model=str(place)))
    assert AltDiffusionPipeline.from_pretrained(folder).text_encoder is not None


def test_without_replay_there_is_a_warning(config: AddLanguageConfig, caplog: pytest.LogCaptureFixture) -> None:
    add_language(replace(config, steps=1, replay=[]))
    assert "no --replay: the languages that it knows will get worse" in caplog.text


def test_english_alone_is_no_language(config: AddLanguageConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data are only in English"):
        add_language(replace(config, data=[write_parallel(tmp_path / "english.jsonl", ("en",))]))


def test_a_model_that_is_not_there(config: AddLanguageConfig) -> None:
    with pytest.raises(UserError, match="there is no /nowhere, which is to be an AltCLIP"):
        add_language(replace(config, model="/nowhere"))
