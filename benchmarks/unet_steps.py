"""Training steps of emoji-m18's UNet: plain, channels-last, compiled and recorded; and the speed of making batches.

Each way has its own process, because a compiled UNet leaves much behind. The batch is the same in every step, so
reading is not measured. Another line reports how many pictures per second the workers prepare without training.

    python benchmarks/unet_steps.py [--batch 4] [--steps 3]
    python benchmarks/unet_steps.py --device cuda --batch 512 --steps 40 --workers 12
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from report import report
from transformers import AutoTokenizer

from altdiffusion_clip.emoji.architectures import new_scheduler, new_unet
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.parts import PACKAGED
from altdiffusion_clip.emoji.pictures import ScenePictures
from altdiffusion_clip.emoji.recipe import ALL_KINDS
from altdiffusion_clip.emoji.scenes import draw_scenes
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.diffusion import Denoiser, LatentsOfCaptions
from altdiffusion_clip.training.loop import mean_loss, read_batches, step_generator
from altdiffusion_clip.training.recorded import RecordedLoss

WAYS = ("plain", "channels-last", "compiled", "compiled channels-last", "compiled channels-last recorded")
SCENES = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="that count, after two that do not")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, "reading"), default=[*WAYS, "reading"])
    options = parser.parse_args()
    if len(options.ways) == 1:
        print(json.dumps(measure(options.ways[0], options)))
        return
    seconds: dict[str, float] = {}
    for way in options.ways:
        command = [sys.executable, __file__, "--device", options.device, "--batch", str(options.batch)]
        command += ["--steps", str(options.steps), "--workers", str(options.workers), "--ways", way]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        line = json.loads(ran.stdout.splitlines()[-1])
        print(f"{way}: {line}", flush=True)
        seconds[way] = line["seconds_a_step"]
    plain = seconds.pop("plain", None)
    reading = seconds.pop("reading", None)
    if plain and seconds:
        best = min(seconds, key=lambda way: seconds[way])
        report(
            "steps of emoji-m18's UNet", options.batch / seconds[best], options.batch / plain, "pictures/s",
            plain / seconds[best], 1.0, best=best, reading=reading and round(options.batch / reading),
        )  # fmt: skip


def measure(way: str, options: argparse.Namespace) -> dict[str, float | str]:
    """The median seconds of a step, and those of the first step, which compiles."""
    device = torch.device(options.device)
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED / "tokenizer")
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no" if device.type == "cpu" else "bf16")
    with tempfile.TemporaryDirectory() as folder:
        scenes = draw_scenes(SCENES if way == "reading" else 1000, seed=0, shares=ALL_KINDS)
        pictures = ScenePictures(scenes, Path(folder), tokenizer, LANGUAGES)
        latents = np.memmap(Path(folder) / "latents", "float16", "w+", shape=(len(scenes), 8, 16, 16))
        source = LatentsOfCaptions(
            pictures, latents, options.batch, 1000, tokenizer.pad_token_id, tokenizer("").input_ids
        )
        if way == "reading":
            config = RunConfig(batch_size=options.batch, steps=options.steps + 22, workers=options.workers)
            batches = read_batches(source, config, 0, accelerator)
            for _ in range(20):  # fills the queue
                next(batches)
            return timed(lambda: next(batches), options.steps, device)
        part = source.load(source.draw(step_generator(0, 0)))
        part = {name: value.to(device) for name, value in part.items()}
    encoder = RobertaSeriesModelWithTransformation.from_pretrained(PACKAGED / "text_encoder", dtype=torch.float32)
    conditioning = Conditioning(encoder.eval().to(device), tokenizer.pad_token_id, "compiled" in way)
    unet = new_unet().to(device)
    if "channels-last" in way:
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if "compiled" in way:
        unet.compile(dynamic=False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    denoiser, optimizer = accelerator.prepare(Denoiser(unet, new_scheduler(), conditioning), optimizer)

    loss = RecordedLoss() if "recorded" in way else mean_loss

    def step() -> None:
        loss(accelerator, denoiser, [part])
        accelerator.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, options.steps, device)


def timed(step: Callable[[], object], count: int, device: torch.device) -> dict[str, float | str]:
    """Times several runs of a step."""
    seconds = []
    for _ in range(count + 2):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"seconds_a_step": statistics.median(seconds[2:]), "first": round(seconds[0], 2)}


if __name__ == "__main__":
    main()
