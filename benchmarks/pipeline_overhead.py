"""The overhead of AltDiffusionPipeline, compared with diffusers' pipelines with the same UNet and steps.

    python benchmarks/pipeline_overhead.py [--steps 2] [--size 256] [--rounds 9]

Stable Diffusion 1's UNet and autoencoder and AltDiffusion-m9's text encoder have their full size and random weights.
"Plain" is StableDiffusionPipeline with a text encoder of CLIP ViT-L's size. "Deprecated" is diffusers' deprecated
AltDiffusionPipeline with its text encoder. All draw the same prompt with the same steps in turns. Figures are medians.
"""

import argparse
import functools
import statistics

from full_size import draw
from full_size import pipelines as make
from report import report_at_most
from timing import in_turns, ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    sides = {
        name: functools.partial(draw, pipe.to(options.device), options.size, options.steps)
        for name, pipe in make().items()
    }
    seconds = in_turns(sides, options.rounds, options.device)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: median {median[name]:.2f} s, {min(values):.2f} to {max(values):.2f} s")
    what = f"a picture of {options.size}x{options.size}, {options.steps} steps, float32"
    for theirs, goal in (("deprecated", 1.0), ("plain", 1.02)):
        times, span = ratio(seconds, "ours", theirs)
        name = f"{what}, AltDiffusionPipeline over {theirs}"
        report_at_most(name, median["ours"], median[theirs], "seconds", goal, ratio_of_rounds=times, range=span)


if __name__ == "__main__":
    main()
