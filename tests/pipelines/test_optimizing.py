"""`optimize`: the same pictures to 35 dB, and to the bit once it is undone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from altdiffusion_clip import (
    AltCLIPScorer,
    AltDiffusionControlNetPipeline,
    AltDiffusionImg2ImgPipeline,
    AltDiffusionInpaintPipeline,
    AltDiffusionPipeline,
)
from tests.conftest import in_full

LEAST_DB = 35.0


@pytest.fixture
def pipe() -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipe.set_progress_bar_config(disable=True)
    return pipe


SMALL = {"height": 64, "width": 64}
"""More would take minutes on a processor without fast arithmetic in bfloat16."""


def draw(pipe, **more: object) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    prompts = ["蓝色背景上的猫", "a red apple"]
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np"}
    size = {} if "image" in more else SMALL
    return pipe(prompts, generator=generators, **{**settings, **size, **more}).images


def psnr(pictures: np.ndarray, others: np.ndarray) -> float:
    """Of the worst picture, in dB."""
    return float(-10 * np.log10(np.square(pictures - others).mean((1, 2, 3)).max() + 1e-12))


def test_pictures_are_the_same_to_35_db_and_undone_to_the_bit(pipe) -> None:
    before = draw(pipe)
    done = pipe.optimize(half=True)
    after = draw(pipe)
    assert pipe.unet.dtype == torch.bfloat16
    assert LEAST_DB < psnr(before, after) < 100
    done.undo()
    assert pipe.unet.dtype == torch.float32
    assert np.array_equal(draw(pipe), before)


def test_what_was_done_is_said(pipe) -> None:
    done = pipe.optimize(half=True)
    assert str(done).splitlines() == ["unet, vae: bfloat16", "vae: channels last"]
    done.undo()
    assert "bfloat16" not in str(pipe.optimize(half=False))


def test_a_half_is_taken_if_it_measures_faster(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from altdiffusion_clip.pipelines.alt_diffusion import optimizing

    slower = {torch.float32: 1.0, torch.bfloat16: 0.9}
    monkeypatch.setattr(optimizing, "_seconds", lambda unet, device: slower[unet.dtype])
    monkeypatch.setattr(optimizing, "is_slow", lambda dtype, device_type: False)
    before = draw(pipe)
    pipe.optimize().undo()
    pipe.optimize()
    assert pipe.unet.dtype == torch.float32
    assert psnr(draw(pipe), before) > 80
    pipe._optimizations.undo()
    slower[torch.bfloat16] = 0.5
    assert "bfloat16 (2.0 times as fast as float32, measured)" in pipe.optimize().changes[0]
    assert pipe.unet.dtype == torch.bfloat16


def test_a_measure_is_taken_on_this_machine(pipe) -> None:
    done = pipe.optimize()
    assert done.changes
    draw(pipe, num_inference_steps=1)


def test_scores_stay_as_they_were(pipe) -> None:
    scorer = AltCLIPScorer.from_pipeline(pipe)
    picture = Image.fromarray((draw(pipe)[0] * 255).astype(np.uint8))
    before = scorer.score("蓝色背景上的猫", picture).cosine
    pipe.optimize(half=True)
    assert torch.equal(scorer.score("蓝色背景上的猫", picture).cosine, before)


def test_best_of_and_halving_go_on(quick_model: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    pipe.optimize(half=True)
    for strategy in ("full", "halving"):
        best = pipe.best_of("蓝色背景上的猫", n=4, num_inference_steps=6, strategy=strategy)
        assert len(best.images) == 1


@pytest.mark.parametrize("kind", ["inpaint", *in_full("img2img", "controlnet")])
def test_other_pipelines(kind: str, pipe) -> None:
    picture = Image.new("RGB", (64, 64), (60, 120, 200))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    torch.manual_seed(0)
    make: dict[str, Callable[[], tuple[object, dict[str, object]]]] = {
        "img2img": lambda: (
            AltDiffusionImg2ImgPipeline(**pipe.components),
            {"image": [picture] * 2, "strength": 0.8},
        ),
        "inpaint": lambda: (
            AltDiffusionInpaintPipeline(**pipe.components),
            {"image": [picture] * 2, "mask_image": [mask] * 2, **SMALL},
        ),
        "controlnet": lambda: (
            AltDiffusionControlNetPipeline(
                controlnet=ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 32)),
                **pipe.components,
            ),
            {"image": [picture] * 2, **SMALL},
        ),
    }
    other, more = make[kind]()
    other.set_progress_bar_config(disable=True)
    before = draw(other, **more)
    done = other.optimize(half=True)
    assert LEAST_DB < psnr(draw(other, **more), before) < 100
    assert ("controlnet" in done.changes[0]) == (kind == "controlnet")
    done.undo()
    assert np.array_equal(draw(other, **more), before)


def test_floating_timesteps_are_not_rounded(pipe) -> None:
    from diffusers import EulerDiscreteScheduler

    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=False)
    before = draw(pipe)
    pipe.optimize(half=True)
    assert psnr(draw(pipe), before) > LEAST_DB


@pytest.mark.full
def test_a_compiled_unet_draws_the_same(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    before = draw(pipe)
    compiled: list[torch.nn.Module] = []
    plain = torch.nn.Module.compile

    def with_a_quick_backend(module: torch.nn.Module) -> None:
        compiled.append(module)
        plain(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", with_a_quick_backend)
    done = pipe.optimize(half=False, compile=True)
    assert psnr(draw(pipe), before) > 80
    assert compiled == [pipe.unet, pipe.vae.decoder]
    done.undo()
    assert pipe.unet._compiled_call_impl is None


def test_twice_is_once_too_often(pipe) -> None:
    pipe.optimize(half=True)
    with pytest.raises(ValueError, match="undo that first"):
        pipe.optimize(half=True)


def test_an_ip_adapter_stays(published: Path) -> None:
    """Its attention processors too, which an earlier `optimize` threw away."""
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None)

    class Other(AttnProcessor2_0):
        """Not diffusers' own."""

    pipe.unet.set_attn_processor(Other())
    done = pipe.optimize(half=True)
    assert {type(processor) for processor in pipe.unet.attn_processors.values()} == {Other}
    done.undo()
    assert {type(processor) for processor in pipe.unet.attn_processors.values()} == {Other}


def test_undo_keeps_weights_that_were_changed_meanwhile(published: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", safety_checker=None)
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    done = pipe.optimize(half=True)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(2)
    done.undo()
    for name, tensor in pipe.unet.state_dict().items():
        if name == "conv_in.weight":
            torch.testing.assert_close(tensor, 2 * before[name], rtol=1e-2, atol=1e-2)
        else:
            assert torch.equal(tensor, before[name]), name
