"""Memory of a pipeline and its scorer with a shared text encoder, compared with separately loaded reference classes.

    python benchmarks/memory.py [--dtype float16] [--format safetensors] [--rounds 3] [--folder build/memory]
                                [--device cpu]

AltDiffusion-m9 and AltCLIP-m9 have their full size and random weights, in float32 on disk as published (10 GB, created
once). Each case runs in its own process: it loads, draws one small picture in one step, and scores it. The figure is
the peak resident memory, or with `--device cuda` the peak GPU memory of tensors. The references are diffusers'
deprecated pipeline with its text encoder, and transformers' AltCLIPModel; both towers have the same weights. Rounds of
all cases alternate, and figures are medians.

The default is float16, as in diffusers' documentation of AltDiffusion. In float32, today's loaders memory-map the
weights, so the resident memory is the system's cache of the files, and both sides have the word embeddings on disk.

The last line is about `altdiffusion convert`: peak resident memory compared with the largest part plus 1 GB.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import torch
from report import report, report_at_most

from altdiffusion_clip.checkpoints.architectures import CONFIG_FILES, CONFIGS, expected_shapes
from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.checkpoints.writer import TensorToWrite, write_safetensors

CASES = ("theirs", "ours", "ours_offloaded")
PROMPT = "蓝色背景上的猫"
TOKENIZER = emoji_m18_folder() / "scorer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float16", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--format", default="safetensors", choices=["safetensors", "bin"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("build/memory"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=[*CASES, "convert"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / options.format
    if options.case == "convert":
        print(json.dumps(convert(folder)))
        return
    if options.case:
        print(json.dumps(load(options.case, folder, options.dtype, options.device)))
        return
    make_checkpoints(folder, options.format)
    rounds = [{case: in_a_process(case, options) for case in CASES} for _ in range(options.rounds)]

    def median(case: str, measure: str) -> float:
        return statistics.median(results[case][measure] for results in rounds)

    for case in CASES:
        seconds = f"loaded in {median(case, 'seconds'):.1f} s, drawn and scored after {median(case, 'used'):.1f} s"
        print(f"{case}: {median(case, 'peak'):.0f} MB, {seconds}")
    converted = in_a_process("convert", options)
    largest = max(path.stat().st_size for path in folder.rglob("*.*") if path.is_file()) / 2**20
    what = f"{options.dtype}, .{options.format}"
    unit = "MB resident" if options.device == "cpu" else "MB of the GPU's"
    report_at_most(f"convert, peak memory, {what}", converted["peak"], largest + 1000, "MB resident", goal=1)
    theirs = median("theirs", "seconds")
    report(
        f"load time, {what}", median("ours", "seconds"), theirs, "seconds", theirs / median("ours", "seconds"), goal=1
    )
    for case, goal in (("ours_offloaded", 0.66), ("ours", 0.77)):
        name = f"pipeline and scorer, peak memory, {'offload_embeddings, ' if case != 'ours' else ''}{what}"
        report_at_most(name, median(case, "peak"), median("theirs", "peak"), unit, goal)


def in_a_process(case: str, options: argparse.Namespace) -> dict[str, float]:
    arguments = [f"--{name}={getattr(options, name)}" for name in ("dtype", "format", "folder", "device")]
    finished = subprocess.run(
        [sys.executable, __file__, "--case", case, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def load(case: str, folder: Path, dtype_name: str, device: str) -> dict[str, float]:
    """Loads one side, draws and scores."""
    dtype = getattr(torch, dtype_name)
    if case == "theirs":
        from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
        from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
            RobertaSeriesModelWithTransformation,
        )
        from diffusers.pipelines.deprecated.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
        from transformers import AltCLIPModel, AltCLIPProcessor, XLMRobertaTokenizer

        start = time.perf_counter()
        parts = folder / "pipeline"
        pipe = AltDiffusionPipeline(
            unet=UNet2DConditionModel.from_pretrained(parts, subfolder="unet", dtype=dtype),
            vae=AutoencoderKL.from_pretrained(parts, subfolder="vae", dtype=dtype),
            text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(
                parts, subfolder="text_encoder", dtype=dtype
            ),
            tokenizer=XLMRobertaTokenizer.from_pretrained(parts / "tokenizer"),
            scheduler=PNDMScheduler.from_pretrained(parts, subfolder="scheduler"),
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        ).to(device)
        clip = AltCLIPModel.from_pretrained(folder / "altclip", dtype=dtype).to(device)
        processor = AltCLIPProcessor.from_pretrained(folder / "altclip")
    else:
        from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline

        start = time.perf_counter()
        offload = case == "ours_offloaded"
        pipe = AltDiffusionPipeline.from_pretrained(folder / "pipeline", dtype=dtype, offload_embeddings=offload)
        pipe.to(device)
        scorer = AltCLIPScorer.from_pipeline(pipe, folder / "altclip")
    loaded = time.perf_counter() - start
    with torch.inference_mode():
        image = pipe(PROMPT, num_inference_steps=1, height=64, width=64).images[0]
        if case == "theirs":
            inputs = processor(text=[PROMPT], images=[image], return_tensors="pt").to(device)
            inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
            clip(**inputs)
        else:
            scorer.rank(PROMPT, [image])
    most = peak() if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20
    return {"seconds": loaded, "used": time.perf_counter() - start, "peak": most}


def convert(folder: Path) -> dict[str, float]:
    """Writes the pipeline as a single file."""
    from altdiffusion_clip.checkpoints.convert import convert

    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        start = time.perf_counter()
        convert(folder / "pipeline", Path(temporary) / "single.safetensors")
        return {"seconds": time.perf_counter() - start, "peak": peak()}


def peak() -> float:
    """The peak resident memory of this process, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def make_checkpoints(folder: Path, format_name: str) -> None:
    """Writes both checkpoints with the same text tower."""
    if (folder / "done").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(CONFIGS / "m2-m9", folder / "pipeline")
    shutil.move(folder / "pipeline" / "scorer", folder / "altclip")
    for place in (folder / "pipeline" / "tokenizer", folder / "altclip"):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(TOKENIZER / name, place / name)
    for part in ("unet", "vae", "text_encoder", "altclip"):
        place = folder / "altclip" if part == "altclip" else folder / "pipeline" / part
        shapes = expected_shapes(part, read_json(place / Path(CONFIG_FILES[part]).name))
        base = "diffusion_pytorch_model" if part in ("unet", "vae") else "model"
        if format_name == "bin":
            tensors = {name: random(name, shape) for name, shape in shapes.items()}
            torch.save(tensors, place / ("pytorch_model.bin" if base == "model" else f"{base}.bin"))
        else:
            entries = [
                TensorToWrite(name, shape, torch.float32, lambda name=name, shape=shape: random(name, shape))
                for name, shape in shapes.items()
            ]
            write_safetensors(place / f"{base}.safetensors", entries)
    (folder / "done").touch()


def random(name: str, shape: torch.Size) -> torch.Tensor:
    """The values of a tower's tensor, the same in both checkpoints."""
    seed = zlib.crc32(name.removeprefix("text_model.").encode())
    values = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values + 1 if "norm" in name.lower() and name.endswith("weight") else values


if __name__ == "__main__":
    main()
