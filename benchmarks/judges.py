"""Choosing the best of eight pictures with the encoder that conditioned them, an independent one, or both.

    python benchmarks/judges.py [--prompts 60]

emoji-m18 draws eight pictures from the English name of a thing, so the background is left to chance. Each judge then
chooses the picture that best fits the thing on a background of a given colour. The nearest render says whether thing
and background are right. Own: emoji-m18's scorer, whose text tower conditioned the UNet. Independent: the English CLIP
that was its teacher, with its own text tower (the vision tower is the same). Both: the mean of their z-scores.
There is one line for each, in percent of the prompts.
"""

import argparse
import json

import torch
from report import machine
from tqdm import tqdm

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import STEPS, Settings, usual_guidance_scale
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import score_drawn
from altdiffusion_clip.judges.names import load_panel

JUDGES = {
    "own": "own=emoji-m18",
    "independent": "independent=emoji-m18/teacher",
    "both": "both=zscores:emoji-m18,emoji-m18/teacher",
}
N = 8
GUIDANCE = usual_guidance_scale("emoji-m18")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=60)
    options = parser.parse_args()
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipeline.set_progress_bar_config(disable=True)
    bench = Bench(load_panel(list(JUDGES.values()), pipeline=pipeline))
    right = dict.fromkeys(["one at random", *JUDGES, "the best possible"], 0.0)
    liked = dict.fromkeys(JUDGES, 0.0)  # how much better the choice looks to the own judge than to the independent one
    for number, (concept, colour) in enumerate(tqdm(plain_pairs(unseen=False)[: options.prompts])):
        prompt, drawn = captions(concept, colour, "en")[0], captions(concept, None, "en")[0]
        seeds = tuple(range(1000 * number, 1000 * number + N))
        settings = Settings(
            drawn,
            seeds[0],
            seeds,
            "emoji-m18",
            num_inference_steps=STEPS,
            guidance_scale=usual_guidance_scale("emoji-m18"),
        )
        images = [image for image in draw_batch(pipeline, settings) if image is not None]
        shown = [recognise(image) for image in images]
        good = [scene.things == (concept,) and scene.ground == colour for scene in shown]
        members = score_drawn(prompt, images, bench)
        standard = (members - members.mean(1, keepdim=True)) / members.std(1, keepdim=True)
        for name, scores in zip(JUDGES, bench.panel.combine(members), strict=True):
            chosen = int(scores.argmax())
            right[name] += good[chosen]
            liked[name] += float(standard[0, chosen] - standard[1, chosen])
        right["one at random"] += sum(good) / len(good)
        right["the best possible"] += any(good)
    for name, count in right.items():
        line = {"name": f"best of {N}, chosen by {name}", "ours": round(100 * count / options.prompts, 1)}
        more = {"own_less_independent_zscore": round(liked[name] / options.prompts, 3)} if name in liked else {}
        print(json.dumps({**line, "unit": "right, percent", **more, "machine": machine()}))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
