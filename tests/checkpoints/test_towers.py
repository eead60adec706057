"""Whether two towers are the same: through every dtype that weights come in, and never for other weights."""

import itertools
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.towers import same_weights
from altdiffusion_clip.errors import CheckpointError

WAYS = {
    "float32": (),
    "float16": (torch.float16,),
    "bfloat16": (torch.bfloat16,),
    "float16, then bfloat16": (torch.float16, torch.bfloat16),
}


def through(weights: torch.Tensor, *dtypes: torch.dtype) -> torch.Tensor:
    for dtype in dtypes:
        weights = weights.to(dtype)
    return weights


@pytest.mark.parametrize(("one", "other"), itertools.product(WAYS, WAYS))
def test_the_same_weights_by_any_two_ways(one: str, other: str) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.02
    for last in (lambda t: t, torch.Tensor.float):
        assert same_weights(last(through(weights, *WAYS[one])), through(weights, *WAYS[other]))


@pytest.mark.parametrize(("one", "other"), itertools.product(WAYS, WAYS))
def test_other_weights_differ_by_any_two_ways(one: str, other: str) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.02
    tuned = weights + 1e-3 * torch.randn(4000, generator=torch.Generator().manual_seed(1))
    assert not same_weights(through(weights, *WAYS[one]), through(tuned, *WAYS[other]))


@pytest.mark.parametrize("change", [1e-6, 1e-4])
def test_a_small_change_of_float32_is_seen(change: float) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.02
    assert not same_weights(weights, weights * (1 + change))


@pytest.fixture(scope="module")
def half_folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The m9 pipeline saved in half precision; its AltCLIP is in float32."""
    folder = tmp_path_factory.mktemp("half")
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", dtype=torch.float16)
    pipe.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_in_half_loaded_in_any_dtype(half_folder: Path, published: Path, dtype: torch.dtype) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(half_folder, dtype=dtype)
    scorer = AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")
    assert scorer.text_model is pipe.text_encoder


def test_a_lora_is_seen_through_and_off_while_scoring(published: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
    head = published / "alt-clip-m9-tiny"
    alone = AltCLIPScorer.from_pretrained(head).encode_texts(["猫"])
    torch.manual_seed(0)
    pipe.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    scorer = AltCLIPScorer.from_pipeline(pipe, head)
    torch.testing.assert_close(scorer.encode_texts(["猫"]), alone)
    ids = torch.tensor([[0, 5, 6, 2]])
    drawn_with = pipe.text_encoder(ids)[0]
    scorer.encode_texts(["猫"])
    torch.testing.assert_close(pipe.text_encoder(ids)[0], drawn_with, msg="the LoRA is on again")
    pipe.text_encoder.disable_adapters()
    assert (pipe.text_encoder(ids)[0] - drawn_with).abs().max() > 1e-4


def test_a_tuned_tower_is_refused_by_name(published: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", dtype=torch.bfloat16)
    with torch.no_grad():
        pipe.text_encoder.roberta.encoder.layer[1].output.dense.weight[3] += 0.01
    with pytest.raises(CheckpointError, match=r"encoder.layer.1.output.dense.weight differs"):
        AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")
