"""Both ways of emphasis: plain prompts are the same by both, weights are what each says."""

from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltDiffusionPipeline


@pytest.fixture(scope="module")
def pipe(published: Path) -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None)


def encode(pipe: AltDiffusionPipeline, prompt: str, how: str) -> torch.Tensor:
    pipe.set_emphasis(how)
    return pipe.encode_prompt(prompt, "cpu", 1, False)[0][0]


def test_without_weights_they_are_one(pipe: AltDiffusionPipeline) -> None:
    torch.testing.assert_close(encode(pipe, "一只猫", "word"), encode(pipe, "一只猫", "vectors"), rtol=0, atol=0)


def test_vectors_are_scaled_at_their_place_and_the_mean_is_kept(pipe: AltDiffusionPipeline) -> None:
    plain, weighted = (encode(pipe, prompt, "vectors") for prompt in ("a red cat", "a (red:1.5) cat"))
    torch.testing.assert_close(weighted.mean(), plain.mean())
    ratio = (weighted / plain).mean(1)
    kinds = sorted({round(float(value), 3) for value in ratio})
    assert len(kinds) == 2
    assert kinds[1] / kinds[0] == pytest.approx(1.5, rel=1e-2)


def test_the_ways_are_kept_apart_in_the_cache(pipe: AltDiffusionPipeline) -> None:
    first = encode(pipe, "a (red:1.5) cat", "word")
    assert (encode(pipe, "a (red:1.5) cat", "vectors") - first).abs().max() > 1e-3
    torch.testing.assert_close(encode(pipe, "a (red:1.5) cat", "word"), first)


def test_another_way_is_refused(pipe: AltDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="word, vectors"):
        pipe.set_emphasis("loud")
