"""Scores and rankings on an accelerator: what the CPU gives. Run by test_placement.py."""

# isort: off
from tests.accelerators.device import DEVICE, NEAR

# isort: on
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.evaluation.ranks import TIES, ranks_of_embeddings
from tests.pictures import held_out_pictures

TEXTS = ["猫", "a dog"]
PICTURES = [str(picture.path) for picture in held_out_pictures()[:8]]


def emoji() -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def expected() -> torch.Tensor:
    return AltCLIPScorer.from_pipeline(emoji()).similarity(TEXTS, PICTURES)


def test_scores(expected: torch.Tensor) -> None:
    scorer = AltCLIPScorer.from_pipeline(emoji().to(DEVICE))
    assert scorer.device.type == DEVICE
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    assert scorer.rank("猫", PICTURES)[0].index == int(expected[0].argmax())
    alone = AltCLIPScorer.from_pretrained("emoji-m18/scorer").to(DEVICE)
    torch.testing.assert_close(alone.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize(
    "move",
    [
        lambda pipe: pipe.to(DEVICE),
        lambda pipe: pipe.enable_model_cpu_offload(device=DEVICE),
        lambda pipe: pipe.enable_sequential_cpu_offload(device=DEVICE),
    ],
    ids=["to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"],
)
def test_a_scorer_follows_its_pipeline(move: Callable[[Any], object], expected: torch.Tensor) -> None:
    pipe = emoji()
    scorer = AltCLIPScorer.from_pipeline(pipe)
    move(pipe)
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    assert scorer.device.type == scorer.vision_model.device.type == DEVICE
    assert len(pipe.best_of("猫", n=1, judge=scorer, num_inference_steps=2).images) == 1


def test_a_scorer_of_an_offloaded_pipeline(expected: torch.Tensor) -> None:
    pipe = emoji()
    pipe.enable_model_cpu_offload(device=DEVICE)
    scorer = AltCLIPScorer.from_pipeline(pipe)
    torch.testing.assert_close(scorer.similarity(TEXTS, PICTURES), expected, atol=NEAR, rtol=0)
    pipe = emoji()
    pipe.enable_sequential_cpu_offload(device=DEVICE)
    with pytest.raises(ValueError, match="before enable_sequential_cpu_offload"):
        AltCLIPScorer.from_pipeline(pipe)


def test_best_of_there_and_back() -> None:
    settings = {"n": 3, "num_inference_steps": 4, "guidance_scale": 3.0, "strategy": "halving"}
    expected = emoji().best_of("蓝色背景上的猫", **settings)
    pipe = emoji()
    for device in ("cpu", DEVICE, "cpu"):
        best = pipe.to(device).best_of("蓝色背景上的猫", **settings)
        assert best.seeds == expected.seeds
        assert best.scores == pytest.approx(expected.scores, abs=NEAR)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(number), "image": image, "text": TEXTS[0]} for number, image in enumerate(PICTURES)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, device in (("there", DEVICE), ("both", f"{DEVICE},cpu"), ("cpu", "cpu")):
        arguments = ["--batch-size", "3", "--workers", "0", "--dtype", "float32", "--device", device]
        assert main(["score", str(source), "--output", str(tmp_path / name), *arguments]) == 0
    there, both, cpu = ([row.scores[0] for row in read_shards(tmp_path / name)] for name in ("there", "both", "cpu"))
    assert there == pytest.approx(cpu, abs=NEAR)
    assert both == pytest.approx(cpu, abs=NEAR)
    assert main(["rerank", "猫", *PICTURES, "--device", DEVICE]) == 0
    drawing = ["--num-images", "2", "--steps", "2", "--output", str(tmp_path / "drawn"), "--device", DEVICE]
    assert main(["generate", "一只猫", *drawing]) == 0
    assert len(list((tmp_path / "drawn").glob("*-seed*.png"))) == 2
    measuring = ["--drawing", "--scenes", "1", "--num-images", "1", "--gallery", "2", "--languages", "en"]
    assert main(["evaluate", "emoji", *measuring, "--device", DEVICE]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("ties", TIES)
def test_ranks_are_computed_where_the_vectors_are(ties: str) -> None:
    torch.manual_seed(0)
    # Few values, so that there are ties.
    texts, images = (torch.nn.functional.normalize(torch.randint(-1, 2, (n, 4)) + 0.1, dim=-1) for n in (50, 30))
    pairs = np.stack([np.arange(50), np.arange(50) % 30], 1)
    expected = ranks_of_embeddings(texts, images, pairs, ties=ties)
    ranks = ranks_of_embeddings(texts.to(DEVICE), images.to(DEVICE), pairs, ties=ties)
    np.testing.assert_array_equal(ranks.of_texts, expected.of_texts)
    np.testing.assert_array_equal(ranks.of_images, expected.of_images)
