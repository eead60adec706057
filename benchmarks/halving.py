"""`best_of(strategy="halving")` compared with finishing all eight pictures: the UNet's work, the gain, and accuracy.

    python benchmarks/halving.py [--prompts 200] [--n 8] [--device cpu]

It uses emoji-m18 with prompts in its eighteen languages in turn, for held-out pairs of a thing and a colour. The gain
is the mean cosine of the chosen picture minus that of a random one of the eight. Accuracy is whether the nearest render
is of the thing. Seconds are reported but not claimed.
"""

import argparse
import json
import statistics
import time

import torch
from report import machine, report_at_most
from tqdm import tqdm

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.drawing.settings import STEPS, usual_guidance_scale
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.recogniser import recognise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18").to(options.device)
    pipe.set_progress_bar_config(disable=True)
    scorer = AltCLIPScorer.from_pipeline(pipe)
    evaluations = 0

    def count(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal evaluations
        evaluations += len(args[0])

    pipe.unet.register_forward_pre_hook(count)
    unseen = plain_pairs(unseen=True)
    chosen = [unseen[number % len(unseen)] for number in range(options.prompts)]
    work = {"full": 0, "halving": 0}
    seconds = {"full": 0.0, "halving": 0.0}
    kept: dict[str, list[float]] = {"full": [], "halving": []}
    recognised = {"full": 0, "halving": 0}
    one_of_n = []
    for number, (concept, colour) in enumerate(tqdm(chosen, desc="prompts")):
        prompt = captions(concept, colour, LANGUAGES[number % len(LANGUAGES)])[0]
        for strategy in kept:
            evaluations, start = 0, time.perf_counter()
            best = pipe.best_of(
                prompt,
                n=options.n,
                seed=1000 * number,
                judge=scorer,
                batch_size=options.n,
                strategy=strategy,
                num_inference_steps=STEPS,
                guidance_scale=usual_guidance_scale("emoji-m18"),
            )
            seconds[strategy] += time.perf_counter() - start
            work[strategy] += evaluations
            kept[strategy].append(best.scores[0])
            recognised[strategy] += recognise(best.images[0]).things == (concept,)
            if strategy == "full":
                one_of_n.append(statistics.mean(best.all_scores.values()))
    gain = {name: statistics.mean(values) - statistics.mean(one_of_n) for name, values in kept.items()}
    share = {name: 100 * right / options.prompts for name, right in recognised.items()}
    lines = [
        ("gain over one of n", gain["halving"], gain["full"], "cosine", gain["halving"] / gain["full"], 0.98),
        ("recognised", share["halving"], share["full"], "%", share["halving"] - share["full"], -2.0),
    ]
    for name, ours, theirs, unit, figure, goal in lines:
        line = {"name": f"halving, {name}", "ours": ours, "theirs": theirs, "unit": unit, "figure": figure}
        print(json.dumps({**line, "goal": goal, "holds": figure >= goal, "machine": machine()}))
    report_at_most(
        f"halving, UNet evaluations, best of {options.n}, {options.prompts} prompts",
        work["halving"],
        work["full"],
        "latents",
        0.55,
        seconds={name: round(spent, 1) for name, spent in seconds.items()},
    )


if __name__ == "__main__":
    main()
