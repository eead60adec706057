"""What AltDiffusionPipeline costs beside its UNet, against diffusers' pipelines with the same UNet and steps.

    python benchmarks/pipeline_overhead.py [--steps 2] [--size 256] [--rounds 9]

Stable Diffusion 1's UNet and autoencoder and AltDiffusion-m9's text encoder in full size, with random weights.
Plain is StableDiffusionPipeline with a text encoder of CLIP ViT-L's size; deprecated is the AltDiffusionPipeline, with
its text encoder, that diffusers has put away. All of them draw the same number of steps of the same prompt, in turns;
the figures are medians.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as deprecated
from diffusers.pipelines.deprecated.alt_diffusion.pipeline_alt_diffusion import (
    AltDiffusionPipeline as DeprecatedAltDiffusionPipeline,
)
from report import report_at_most
from transformers import CLIPTextConfig, CLIPTextModel, XLMRobertaTokenizer
from transformers.initialization import no_init_weights

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.architectures import CONFIGS
from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

TOKENIZER = Path(__file__).parents[1] / "tests" / "fixtures" / "published" / "alt-diffusion-m9-tiny" / "tokenizer"
CLIP_VIT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    pipelines = {name: pipe.to(options.device) for name, pipe in make().items()}
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    names = list(pipelines)
    for round_number in range(options.rounds + 1):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:  # who is first, and finds other caches, changes
            pipe = pipelines[name]
            start = time.perf_counter()
            pipe(
                "雪山下的红色小屋",
                negative_prompt="模糊",
                height=options.size,
                width=options.size,
                num_inference_steps=options.steps,
                generator=torch.Generator().manual_seed(0),
                output_type="np",
            )
            if round_number:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: median {median[name]:.2f} s, {min(values):.2f} to {max(values):.2f} s")
    what = f"a picture of {options.size}x{options.size}, {options.steps} steps, float32"
    for theirs, goal in (("deprecated", 1.0), ("plain", 1.02)):
        shares = [ours / other for ours, other in zip(seconds["ours"], seconds[theirs], strict=True)]
        name = f"{what}, AltDiffusionPipeline over {theirs}"
        report_at_most(name, median["ours"], median[theirs], "seconds", goal, ratio_of_rounds=statistics.median(shares))


def make() -> dict[str, StableDiffusionPipeline]:
    configs = CONFIGS / "m2-m9"
    text_config = read_json(configs / "text_encoder" / "config.json")
    torch.manual_seed(0)
    with no_init_weights():
        ours = RobertaSeriesModelWithTransformation(RobertaSeriesConfig(**text_config))
        old = deprecated.RobertaSeriesModelWithTransformation(deprecated.RobertaSeriesConfig(**text_config))
        clip = CLIPTextModel(CLIPTextConfig(**CLIP_VIT_L))
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(configs, subfolder="unet"))
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(configs, subfolder="vae"))
    for model in (ours, clip):
        for name, parameter in model.named_parameters():
            parameter.data.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.02)
    old.load_state_dict(ours.state_dict(), strict=False, assign=True)
    pipelines = {}
    for name, kind, text_encoder in (
        ("ours", AltDiffusionPipeline, ours),
        ("plain", StableDiffusionPipeline, clip),
        ("deprecated", DeprecatedAltDiffusionPipeline, old),
    ):
        pipelines[name] = kind(
            vae=vae.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=XLMRobertaTokenizer.from_pretrained(TOKENIZER),
            unet=unet.eval(),
            scheduler=PNDMScheduler.from_pretrained(configs, subfolder="scheduler"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipelines[name].set_progress_bar_config(disable=True)
    return pipelines


if __name__ == "__main__":
    main()
