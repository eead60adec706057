import logging

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from altdiffusion_clip import AltDiffusionPipeline

LONG = "雪山下的红色小屋，" * 40


@pytest.fixture(scope="module", params=["m9", "m18"])
def pipe(request: pytest.FixtureRequest, published) -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{request.param}-tiny")


@pytest.fixture(scope="module")
def plain(pipe: AltDiffusionPipeline) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(**pipe.components)


@torch.no_grad()
def encode(pipe: StableDiffusionPipeline, prompt: str | list[str], **more: object) -> tuple[torch.Tensor, torch.Tensor]:
    return pipe.encode_prompt(prompt, "cpu", 1, True, **more)


class TestAsDiffusersEncodes:
    @pytest.mark.parametrize("prompt", ["猫", "", ["a dog", "قطة زرقاء"], LONG])
    @pytest.mark.parametrize("clip_skip", [None, 0, 1, 2])
    def test_plain_prompts(self, prompt: str | list[str], clip_skip: int | None, pipe, plain) -> None:
        negative = "模糊" if isinstance(prompt, str) else ["模糊", ""]
        for ours, theirs in zip(
            *(encode(p, prompt, negative_prompt=negative, clip_skip=clip_skip) for p in (pipe, plain)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    def test_without_the_mask(self, pipe, plain) -> None:
        pipe.text_encoder.config.use_attention_mask = False
        try:
            for ours, theirs in zip(encode(pipe, "猫"), encode(plain, "猫"), strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        finally:
            pipe.text_encoder.config.use_attention_mask = True

    def test_several_pictures_of_each(self, pipe, plain) -> None:
        ours, theirs = (p.encode_prompt(["猫", "dog"], "cpu", 3, True)[0] for p in (pipe, plain))
        assert ours.shape[0] == 6
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    def test_embeddings_that_are_given(self, pipe) -> None:
        positive, negative = encode(pipe, "猫", negative_prompt="狗")
        again = encode(pipe, None, prompt_embeds=positive, negative_prompt_embeds=negative)
        assert torch.equal(again[0], positive)
        assert torch.equal(again[1], negative)
        mixed = encode(pipe, None, prompt_embeds=positive, negative_prompt="狗")
        assert torch.equal(mixed[1], negative)

    @pytest.mark.parametrize(
        ("prompt", "negative", "error"), [("猫", ["狗"], TypeError), (["猫", "狗"], ["a"], ValueError)]
    )
    def test_prompts_that_do_not_fit_each_other(self, prompt, negative, error, pipe, plain) -> None:
        messages = []
        for p in (pipe, plain):
            with pytest.raises(error) as caught:
                encode(p, prompt, negative_prompt=negative)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


class TestWeights:
    def test_one_is_none_and_zero_is_the_word_left_away(self, pipe) -> None:
        plain = encode(pipe, "a red apple")[0]
        assert torch.equal(encode(pipe, "a (red:1) apple")[0], plain)
        without, half, double = (encode(pipe, f"a (red:{weight}) apple")[0] for weight in (0, 0.5, 2))
        torch.testing.assert_close(half, (without + plain) / 2, atol=1e-5, rtol=0)
        torch.testing.assert_close(double - plain, plain - without, atol=1e-5, rtol=0)
        assert not torch.allclose(without, plain)

    def test_full_width_notation_is_the_same(self, pipe) -> None:
        assert torch.equal(encode(pipe, "（红色：1.5）的苹果")[0], encode(pipe, "(红色:1.5)的苹果")[0])

    def test_escaped_brackets_are_read(self, pipe, plain) -> None:
        torch.testing.assert_close(encode(pipe, r"a \(red\) apple"), encode(plain, "a (red) apple"), atol=1e-5, rtol=0)

    def test_a_batch_equals_single_prompts(self, pipe) -> None:
        prompts = ["a (red:1.5) apple", "plain", "[two] (weights:0.3)"]
        together = encode(pipe, prompts, negative_prompt=["(no:2)", "", "a"])
        for i, prompt in enumerate(prompts):
            alone = encode(pipe, prompt, negative_prompt=["(no:2)", "", "a"][i])
            for ours, each in zip(together, alone, strict=True):
                torch.testing.assert_close(ours[i], each[0], atol=1e-5, rtol=0)


class TestLongPrompts:
    def test_what_is_cut_is_named(self, pipe, caplog) -> None:
        with caplog.at_level(logging.WARNING):
            assert encode(pipe, LONG)[0].shape[1] == 77
        assert "only 77 are used; cut: '" in caplog.text

    def test_windows_follow_one_another_and_the_negative_is_as_long(self, pipe, caplog) -> None:
        short = encode(pipe, "猫")
        pipe.enable_long_prompts(9)
        try:
            positive, negative = encode(pipe, LONG, negative_prompt="狗")
            other = encode(pipe, "猫", negative_prompt=LONG)
        finally:
            pipe.disable_long_prompts()
        assert positive.shape == negative.shape
        assert positive.shape[1] % 77 == 0
        assert positive.shape[1] > 77
        assert "cut" not in caplog.text
        assert other[0].shape == other[1].shape
        torch.testing.assert_close(other[0][:, :77], short[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(other[0][:, 77:154], encode(pipe, "")[0], atol=1e-5, rtol=0)

    def test_the_end_of_a_long_prompt_is_drawn(self, pipe) -> None:
        pipe.set_progress_bar_config(disable=True)
        pictures = []
        pipe.enable_long_prompts()
        for end in ("猫", "狗"):
            generator = torch.Generator().manual_seed(0)
            pictures.append(
                pipe(
                    LONG[:120] + end, num_inference_steps=2, height=64, width=64, generator=generator, output_type="np"
                ).images
            )
        pipe.disable_long_prompts()
        assert np.abs(pictures[0] - pictures[1]).max() > 0

    def test_less_than_one_window(self, pipe) -> None:
        with pytest.raises(ValueError, match="give 1 or more"):
            pipe.enable_long_prompts(0)
