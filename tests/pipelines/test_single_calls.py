"""What people ask of a pipeline besides drawing: embeddings of any length, textual inversion, variants, schedulers."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from altdiffusion_clip import AltDiffusionPipeline, RobertaSeriesModelWithTransformation
from altdiffusion_clip.schedulers import SCHEDULERS, scheduler_like
from tests.conftest import in_full

SMALL = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}


@pytest.fixture(scope="module")
def pipe(published: Path) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("length", [3, 77, *in_full(10, 76)])
def test_embeddings_of_any_length_with_guidance(length: int, pipe: AltDiffusionPipeline) -> None:
    embeds = pipe.encode_prompt("雪山下的红色小屋", "cpu", 1, False)[0][:, :length]
    plain = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    pictures = [
        each(prompt_embeds=embeds, negative_prompt="雾", generator=torch.Generator().manual_seed(0), **SMALL).images
        for each in (pipe, plain)
    ]
    assert abs(pictures[0] - pictures[1]).max() < 1e-5, "diffusers' own class draws the same"


def test_embeddings_that_no_negative_prompt_can_match(pipe: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="negative_prompt_embeds"):
        pipe(prompt_embeds=pipe.encode_prompt("猫", "cpu", 1, False)[0][:, :1], **SMALL)


@pytest.mark.parametrize("offload", [False, True])
def test_textual_inversion(offload: bool, published: Path, tmp_path: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", offload_embeddings=offload)
    torch.manual_seed(0)
    vector = torch.randn(pipe.text_encoder.config.hidden_size)
    torch.save({"<my-cat>": vector}, tmp_path / "learned_embeds.bin")
    before = pipe.encode_prompt("猫", "cpu", 1, False)[0]
    pipe.load_textual_inversion(str(tmp_path / "learned_embeds.bin"))
    token = pipe.tokenizer.convert_tokens_to_ids("<my-cat>")
    torch.testing.assert_close(pipe.text_encoder.get_input_embeddings().weight[token].float(), vector)
    torch.testing.assert_close(pipe.encode_prompt("猫", "cpu", 1, False)[0], before)
    assert (pipe.encode_prompt("<my-cat>", "cpu", 1, False)[0] - before).abs().max() > 1e-3


def test_a_variant_that_is_not_there_is_refused_as_diffusers_does(published: Path) -> None:
    with pytest.raises(ValueError, match=r"variant=fp16.*unet/diffusion_pytorch_model"):
        AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", variant="fp16")


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 3, *in_full(2, 5)])
def test_every_scheduler_with_few_steps(name: str, steps: int, pipe: AltDiffusionPipeline) -> None:
    if name == "unipc" and steps == 1:
        pytest.skip("UniPC is of the second order: diffusers has it fail with one step on plain pipelines as well")
    own = pipe.scheduler
    pipe.scheduler = scheduler_like(own, name)
    try:
        assert pipe("猫", **{**SMALL, "num_inference_steps": steps}).images.shape[0] == 1
    finally:
        pipe.scheduler = own


def test_the_keyword_of_every_from_pretrained(published: Path) -> None:
    from altdiffusion_clip import AltCLIPProcessor, AltCLIPScorer

    pipeline, altclip = published / "alt-diffusion-m9-tiny", published / "alt-clip-m9-tiny"
    AltDiffusionPipeline.from_pretrained(pretrained_model_name_or_path=pipeline)
    RobertaSeriesModelWithTransformation.from_pretrained(
        pretrained_model_name_or_path=pipeline, subfolder="text_encoder"
    )
    AltCLIPScorer.from_pretrained(pretrained_model_name_or_path=altclip)
    AltCLIPProcessor.from_pretrained(pretrained_model_name_or_path=altclip)


def test_tools_that_walk_through_a_clip(pipe: AltDiffusionPipeline) -> None:
    text_model = pipe.text_encoder.text_model
    assert text_model.encoder is pipe.text_encoder.roberta.encoder
    assert text_model.embeddings.word_embeddings is pipe.text_encoder.get_input_embeddings()
