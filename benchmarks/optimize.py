"""`pipe.optimize()` compared with diffusers' deprecated AltDiffusionPipeline with its defaults.

    python benchmarks/optimize.py [--size 256] [--steps 25] [--batch-sizes 1] [--rounds 3]
    python benchmarks/optimize.py --device cuda --size 512 --batch-sizes 1 4     # theirs in float16

Stable Diffusion 1's UNet and autoencoder and AltDiffusion-m9's text encoder have their full size and random weights. On
a CPU, theirs computes in float32, its default there. Both sides are warmed up, which compiles ours on a GPU. The last
line compares emoji-m18's pictures before and after, in dB.
"""

import argparse
import functools
import json
import statistics

import numpy as np
import torch
from full_size import draw, pipelines
from report import report
from timing import in_turns, ratio

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.languages import LANGUAGES

LEAST_DB = 35.0


def worst_psnr(device: str) -> float:
    """Compares 18 pictures of emoji-m18, one in each language, before and after."""
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18").to(device)
    pipe.set_progress_bar_config(disable=True)
    chosen = plain_pairs(unseen=True)[: len(LANGUAGES)]
    prompts = [captions(concept, colour, LANGUAGES[i])[0] for i, (concept, colour) in enumerate(chosen)]
    drawn = []
    for _ in range(2):
        generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
        settings = {"num_inference_steps": 20, "guidance_scale": 2.0, "output_type": "np"}
        drawn.append(pipe(prompts, generator=generators, **settings).images)
        if len(drawn) == 1:
            pipe.optimize(half=True)
    return float(-10 * np.log10(np.square(drawn[0] - drawn[1]).mean((1, 2, 3)).max() + 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    is_gpu = options.device != "cpu"

    theirs = pipelines(("deprecated",))["deprecated"]
    ours = pipelines(("ours",))["ours"]
    if is_gpu:
        theirs, ours = theirs.to(options.device, torch.float16), ours.to(options.device, torch.float16)
    done = ours.optimize()
    print(done, flush=True)
    for count in options.batch_sizes:
        sides = {
            name: functools.partial(draw, pipe, options.size, options.steps, count)
            for name, pipe in (("ours", ours), ("theirs", theirs))
        }
        seconds = in_turns(sides, options.rounds, options.device)
        times, span = ratio(seconds, "theirs", "ours")
        report(
            f"optimize, {count} of {options.size}x{options.size}, {options.steps} steps",
            statistics.median(seconds["ours"]),
            statistics.median(seconds["theirs"]),
            "seconds",
            times,
            1.5 if is_gpu else 1.8,
            range=span,
            changes=done.changes,
        )
    least = worst_psnr(options.device)
    print(json.dumps({"name": "optimize, worst picture of emoji-m18", "psnr_db": round(least, 1), "goal": LEAST_DB}))


if __name__ == "__main__":
    main()
