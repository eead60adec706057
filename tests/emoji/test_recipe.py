"""Every stage of the recipe for two steps, stopped and gone on, up to a pipeline that draws; and what is kept of it."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.emoji import parts, recipe
from altdiffusion_clip.emoji.captions import held_out_words
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.training import align


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A world of few scenes, a narrow UNet, and no finished parts in the package."""
    monkeypatch.setattr(recipe, "PACKAGED", tmp_path / "emoji-m18")
    draw, meanings = recipe.draw_scenes, list(recipe.meanings(20))[:200]
    monkeypatch.setattr(
        recipe, "draw_scenes", lambda count, seed, shares, **more: draw(min(count, 64), seed, shares, **more)
    )
    monkeypatch.setattr(recipe, "meanings", lambda: meanings)
    monkeypatch.setattr(recipe, "cldr_names", lambda languages: [])
    for name in ("english_sentences", "student_sentences"):
        made = getattr(recipe, name)
        monkeypatch.setattr(recipe, name, lambda made=made: made(3000))
    monkeypatch.setattr(align, "SAMPLE_STEPS", 1)
    monkeypatch.setitem(recipe.PROFILES, "cpu", {stage: {"batch_size": 8} for stage in recipe.STAGES})
    narrow = {**parts.new_unet().config, "block_out_channels": (16, 32), "layers_per_block": 1}
    monkeypatch.setattr(parts, "new_unet", lambda: UNet2DConditionModel.from_config(narrow))


def run(monkeypatch: pytest.MonkeyPatch, work: Path, *more: str) -> None:
    monkeypatch.setattr("sys.argv", ["recipe", "--work", str(work), "--steps", "2", "--mixed-precision", "no", *more])
    recipe.main()


@pytest.mark.full
def test_from_nothing_to_a_pipeline_that_draws(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, packaged = tmp_path / "work", recipe.PACKAGED
    run(monkeypatch, work)
    for stage in recipe.STAGES:
        assert recipe.is_done(work, stage), stage
    pipe = AltDiffusionPipeline.from_pretrained(work / "align" / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe("猫", num_inference_steps=1).images[0].size == (128, 128)
    assert pipe.text_encoder.config.has_pre_transformation
    average = load_file(work / "align" / "unet.safetensors")
    assert average.keys() == pipe.unet.state_dict().keys()
    assert {tensor.dtype for tensor in average.values()} == {torch.float16}

    # What is kept is what another machine begins with.
    parts.keep(work, packaged)
    scorer = AltCLIPScorer.from_pretrained(packaged / "scorer")
    assert scorer.encode_texts(["猫", "a cat"]).shape == (2, 192)
    kept = AltDiffusionPipeline.from_pretrained(packaged, dtype=torch.float32)
    assert torch.equal(kept.unet.conv_in.weight, average["conv_in.weight"].float())
    for config in packaged.glob("*/config.json"):
        assert str(tmp_path) not in config.read_text(encoding="utf-8"), "a machine's path"
    elsewhere = tmp_path / "elsewhere"
    parts.restore(elsewhere, packaged)
    assert all(recipe.is_done(elsewhere, stage) for stage in ("vae", "teacher", "distill", "contrastive", "scoring"))
    monkeypatch.setitem(recipe.PROFILES, "gpu", {"align": {"batch_size": 8, "workers": 2}})
    run(monkeypatch, elsewhere, "--profile", "gpu")
    other = AltDiffusionPipeline.from_pretrained(elsewhere / "align" / "model")
    for name, tensor in other.text_encoder.state_dict().items():
        torch.testing.assert_close(tensor, pipe.text_encoder.state_dict()[name].half().float(), msg=name)


def test_it_stops_in_time_without_a_traceback(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="run the same command again"):
        run(monkeypatch, tmp_path, "--stage", "vae", "--steps", "100000", "--seconds", "2")
    assert (tmp_path / "vae" / "crops" / "checkpoint.pt").is_file()


def test_the_average_of_a_unet_with_channels_last_is_written(tmp_path: Path) -> None:
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    (tmp_path / "align").mkdir()
    torch.save({"average": {"unet.conv_in.weight": weight}}, tmp_path / "align" / "checkpoint.pt")
    parts.write_average(tmp_path)
    assert torch.equal(load_file(tmp_path / "align" / "unet.safetensors")["conv_in.weight"], weight.half())


def test_parallel_sentences_teach_each_held_out_word_alone(small: None, tmp_path: Path) -> None:
    path = recipe.write_parallel(tmp_path / "parallel.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = 0
    for language in LANGUAGES[1:]:
        for index, word in held_out_words(language).items():
            said = {sentence for row in rows for sentence in row[language] if word == sentence}
            found += bool(said)
            assert bool(said) == (index < 13)
    assert found > 5
