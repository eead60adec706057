"""Memory of a pipeline and a scorer: one shared text encoder, against diffusers' and transformers' classes apart.

    python benchmarks/memory.py [--folder build/memory] [--dtype float32]

Full-size AltDiffusion-m9 and AltCLIP-m9 with random weights (10 GB on disk, made once). Each case runs in a
process of its own, which loads, draws one step of a small picture and scores it; the figure is the most memory that
was resident. `--offload` is the line for `offload_embeddings=True`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

CASES = ("theirs", "ours", "ours_offloaded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/memory"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--format", default="safetensors", choices=["safetensors", "bin"])
    parser.add_argument("--case", choices=CASES)
    options = parser.parse_args()
    if options.case:
        measure(options)
        return
    make(options.folder, options.format)
    results = {}
    for case in CASES:
        command = [
            sys.executable,
            __file__,
            "--case",
            case,
            "--folder",
            str(options.folder),
            "--dtype",
            options.dtype,
            "--format",
            options.format,
        ]
        results[case] = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )
        print(case, results[case])


def make(folder: Path, format: str) -> None:
    import shutil

    from altdiffusion_clip.checkpoints.architectures import CONFIG_FILES, CONFIGS, expected_shapes
    from altdiffusion_clip.checkpoints.layouts import read_json
    from altdiffusion_clip.checkpoints.writer import TensorToWrite, write_safetensors

    if (folder / format / "done").exists():
        return
    folder = folder / format
    shutil.copytree(CONFIGS / "m2-m9", folder / "pipeline", dirs_exist_ok=True)
    fixture = Path(__file__).parents[1] / "tests/fixtures/published/alt-clip-m9-tiny"
    for place in (folder / "pipeline" / "tokenizer", folder / "altclip"):
        place.mkdir(exist_ok=True)
        for name in ("sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(fixture / name, place / name)
    for name in ("config.json", "preprocessor_config.json"):
        shutil.move(folder / "pipeline" / "scorer" / name, folder / "altclip" / name)
    (folder / "pipeline" / "scorer").rmdir()
    places = {
        "unet": "pipeline/unet/diffusion_pytorch_model",
        "vae": "pipeline/vae/diffusion_pytorch_model",
        "text_encoder": "pipeline/text_encoder/model",
        "altclip": "altclip/model",
    }

    def random(name, shape):
        generator = torch.Generator().manual_seed(hash(name.removeprefix("text_model.")) % 2**31)
        if shape.numel() == 1:
            return torch.full(shape, 2.6)
        return (
            torch.randn(shape, generator=generator)
            .mul_(0.02)
            .add_(1 if "norm" in name.lower() and "weight" in name else 0)
        )

    for part, place in places.items():
        config = read_json(folder / ("altclip/config.json" if part == "altclip" else f"pipeline/{CONFIG_FILES[part]}"))
        shapes = expected_shapes(part, config)
        if format == "bin":
            torch.save(
                {n: random(n, s) for n, s in shapes.items()},
                folder / f"{place.replace('/model', '/pytorch_model')}.bin",
            )
        else:
            write_safetensors(
                folder / f"{place}.safetensors",
                [TensorToWrite(n, s, torch.float32, lambda n=n, s=s: random(n, s)) for n, s in shapes.items()],
            )
    (folder / "done").touch()


def status():
    d = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
    return {k: round(int(d[k].split()[0]) / 1024) for k in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}


def measure(options) -> None:
    import diffusers

    dtype = getattr(torch, options.dtype)
    folder = options.folder / options.format
    log = {}
    prompt = "a cat on a blue background"
    if options.case == "theirs":
        from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
        from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
            RobertaSeriesModelWithTransformation,
        )
        from diffusers.pipelines.deprecated.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
        from transformers import AltCLIPModel, AltCLIPProcessor, XLMRobertaTokenizer

        log["import"] = status()
        start = time.perf_counter()
        p = folder / "pipeline"
        unet = UNet2DConditionModel.from_pretrained(p, subfolder="unet", torch_dtype=dtype)
        log["unet"] = status()
        vae = AutoencoderKL.from_pretrained(p, subfolder="vae", torch_dtype=dtype)
        te = RobertaSeriesModelWithTransformation.from_pretrained(p, subfolder="text_encoder", dtype=dtype)
        log["te"] = status()
        pipe = AltDiffusionPipeline(
            vae,
            te,
            XLMRobertaTokenizer.from_pretrained(p / "tokenizer"),
            unet,
            PNDMScheduler.from_pretrained(p, subfolder="scheduler"),
            None,
            None,
            None,
            False,
        )
        clip = AltCLIPModel.from_pretrained(folder / "altclip", dtype=dtype)
        processor = AltCLIPProcessor.from_pretrained(folder / "altclip")
        log["clip"] = status()
    else:
        from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline

        diffusers.UNet2DConditionModel, AltDiffusionPipeline, AltCLIPScorer
        log["import"] = status()
        start = time.perf_counter()
        more = {"offload_embeddings": True} if options.case == "ours_offloaded" else {}
        pipe = AltDiffusionPipeline.from_pretrained(folder / "pipeline", torch_dtype=dtype, **more)
        log["pipe"] = status()
        scorer = AltCLIPScorer.from_pipeline(pipe, folder / "altclip")
        log["scorer"] = status()
    seconds = time.perf_counter() - start
    pipe.set_progress_bar_config(disable=True)
    with torch.inference_mode():
        image = pipe(prompt, num_inference_steps=1, height=64, width=64).images[0]
        log["drawn"] = status()
        if options.case == "theirs":
            inputs = processor(text=[prompt], images=[image], return_tensors="pt")
            inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
            logit = clip(**inputs).logits_per_image
        else:
            logit = scorer.rank(prompt, [image])[0].cosine
    log["scored"] = status()
    print(json.dumps({"seconds": seconds, "peak": status()["VmHWM"], "log": log}))


if __name__ == "__main__":
    main()
