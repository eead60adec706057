"""The effect of a word's weight, our way and the WebUIs': at 0 the word should vanish, above 1 it should stay.

    python benchmarks/emphasis.py [--prompts 40] [--device cpu]

The default model draws things on a coloured background, with the colour at weight 0 and at 1.5. At 0, the background
should have another colour than the prompt says. At 1.5, it should have that colour, and the thing should still be
there. Both are told by the nearest render.
"""

import argparse

import torch
from report import report
from tqdm import tqdm

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.drawing.settings import STEPS, usual_guidance_scale
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.recogniser import recognise
from altdiffusion_clip.pipelines.alt_diffusion.prompting import EMPHASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18").to(options.device)
    pipe.set_progress_bar_config(disable=True)
    right = {(how, weight): 0 for how in EMPHASES for weight in (0.0, 1.5)}
    for number, (concept, colour) in enumerate(tqdm(plain_pairs(unseen=False)[: options.prompts], desc="prompts")):
        for how, weight in right:
            pipe.set_emphasis(how)
            image = pipe(
                f"a {concept.names['en']} on a ({colour.name}:{weight}) background",
                num_inference_steps=STEPS,
                guidance_scale=usual_guidance_scale("emoji-m18"),
                generator=torch.Generator().manual_seed(number),
            ).images[0]
            found = recognise(image)
            shows, kept = found.ground == colour, found.things == (concept,)
            right[how, weight] += kept and (shows if weight else not shows)
    for weight in (0.0, 1.5):
        ours, theirs = (100 * right[how, weight] / options.prompts for how in ("word", "vectors"))
        report(f"emphasis at weight {weight}", ours, theirs, "% right", ours / max(theirs, 100 / options.prompts), 1.0)


if __name__ == "__main__":
    main()
