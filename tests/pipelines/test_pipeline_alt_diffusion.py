import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from altdiffusion_clip import AltDiffusionPipeline


def draw(pipe: StableDiffusionPipeline, prompt: str | list[str] = "苹果", **changes: object) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
    return pipe(prompt, **{**settings, **changes}).images


@pytest.fixture(scope="module")
def quick(quick_model: Path) -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained(quick_model)


def test_same_seed_same_pixels(quick: AltDiffusionPipeline) -> None:
    assert (draw(quick) == draw(quick)).all()
    assert (draw(quick) != draw(quick, generator=torch.Generator().manual_seed(1))).any()


def test_the_prompt_matters(quick: AltDiffusionPipeline) -> None:
    assert (draw(quick, "猫") != draw(quick, "狗")).any()


def test_components_go_into_stable_diffusion_and_back(quick: AltDiffusionPipeline) -> None:
    stable = StableDiffusionPipeline(**quick.components, requires_safety_checker=False)
    back = AltDiffusionPipeline(**stable.components, requires_safety_checker=False)
    assert back.text_encoder is quick.text_encoder
    np.testing.assert_allclose(draw(stable, guidance_scale=1.5), draw(quick), atol=1e-4)


def test_a_prompt_is_its_embedding(quick: AltDiffusionPipeline) -> None:
    positive, negative = quick.encode_prompt("苹果", "cpu", 1, True)
    assert positive.shape == (1, 77, quick.unet.config.cross_attention_dim)
    from_embeds = draw(quick, None, prompt_embeds=positive, negative_prompt_embeds=negative)
    np.testing.assert_allclose(from_embeds, draw(quick), atol=1e-6)


def test_a_batch_equals_single_pictures(quick: AltDiffusionPipeline) -> None:
    seeds = [3, 4]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    together = draw(quick, ["猫", "a red apple on a white background"], generator=generators)
    for i, prompt in enumerate(["猫", "a red apple on a white background"]):
        alone = draw(quick, prompt, generator=torch.Generator().manual_seed(seeds[i]))
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)


def in_a_hubs_cache(folder, cache, repository: str) -> dict[str, object]:
    """Puts a folder where the hub's own client would have put it, so that nothing is fetched."""
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))
    return {"cache_dir": cache, "local_files_only": True}


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("m", ["m9", "m18"])
def test_hub_ids(m: str, offload: bool, published, golden, tmp_path) -> None:
    hub = in_a_hubs_cache(published / f"alt-diffusion-{m}-tiny", tmp_path, f"BAAI/AltDiffusion-{m}")
    pipe = AltDiffusionPipeline.from_pretrained(f"BAAI/AltDiffusion-{m}", offload_embeddings=offload, **hub)
    settings = {"num_inference_steps": 4, "guidance_scale": 5.0, "generator": torch.Generator().manual_seed(101)}
    picture = draw(pipe, str(golden["prompts"][1]), negative_prompt="模糊", height=64, width=64, **settings)[0]
    np.testing.assert_allclose(picture, golden[f"{m}.image.1"], atol=1e-5)


def test_long_tokenizer_windows_are_77(published) -> None:
    from transformers import XLMRobertaTokenizer

    folder = published / "alt-diffusion-m18-tiny"
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder / "tokenizer", model_max_length=512)
    pipe = AltDiffusionPipeline.from_pretrained(folder, tokenizer=tokenizer)
    assert pipe.tokenizer.model_max_length == 77
    assert pipe.encode_prompt("long " * 300, "cpu", 1, False)[0].shape[1] == 77
