"""Whether a merge makes a fine-tuned model draw from Chinese prompts: emoji in another style.

An English diffusion model of single emoji is trained on emoji-m9's autoencoder and teacher. Two more models are made
from it: one is aligned to emoji-m9's text encoder by training only the keys and values of the cross-attention, and one
is fine-tuned to draw in orange with outlines. The two are merged. The style model draws from English and Chinese
prompts before and after the merge, for held-out concept-colour pairs. A picture counts if a classifier of outlined
renders recognises the concept, and if the picture is nearer to the outlined render than to the plain one.

    python benchmarks/merge_styles.py [--output build/styles] [--steps 8000] [--prompts 100]

It takes about an hour on two cores, and continues after a stop. It needs Noto Color Emoji to draw its pictures.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from report import report
from transformers import CLIPTokenizer

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.merge import merge
from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.drawing.settings import usual_guidance_scale
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.data import PICTURES_PER_PAIR, known_pairs, write_data
from altdiffusion_clip.emoji.recipe import write_untrained
from altdiffusion_clip.emoji.recogniser import Recogniser
from altdiffusion_clip.emoji.recogniser_training import train_recogniser
from altdiffusion_clip.emoji.renders import RESOLUTION, render
from altdiffusion_clip.evaluation.emoji import pairs
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import AlignConfig
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.models import MODEL

STYLE = "outlined"
TOGETHER = 10


def trained(model: Path, data: Path, output: Path, **settings: Any) -> Path:
    """Runs `align` on a model."""
    align(AlignConfig(output=output, model=str(model), data=[data], batch_size=16, **settings))
    return output / MODEL


def english_model(data: Path, output: Path, steps: int) -> Path:
    """An English diffusion model on emoji-m9's autoencoder and its English teacher: the base of all that follows."""
    untrained = output / "untrained"
    if not untrained.exists():
        write_untrained(untrained, emoji_m9_folder() / "vae", emoji_m9_folder() / "teacher")
    pace = {"steps": steps, "learning_rate": 6e-4, "warmup_steps": 200, "decay_from": 0.6, "ema_decay": 0.999}
    return trained(untrained, data, output, languages=["en"], **pace)


def aligned(english: Path, data: Path, output: Path, steps: int) -> Path:
    """The same model aligned to emoji-m9's text encoder. Only keys and values of the cross-attention are trained."""
    pace = {"keys_and_values_steps": steps, "steps": 0, "learning_rate": 8e-4, "warmup_steps": 100, "decay_from": 0.5}
    return trained(english, data, output, text_encoder=str(emoji_m9_folder()), **pace)


def fine_tuned(english: Path, data: Path, output: Path, steps: int) -> Path:
    """The English diffusion model, in the other style."""
    pace = {"steps": steps, "learning_rate": 3e-4, "warmup_steps": 50, "decay_from": 0.5, "ema_decay": 0.995}
    return trained(english, data, output, languages=["en"], **pace)


def recogniser_of(data: Path, english: Path, output: Path) -> Recogniser:
    """A classifier of outlined renders, trained like the package's classifier of plain ones."""
    tokenizer = CLIPTokenizer.from_pretrained(english, subfolder="tokenizer")
    pictures = CaptionedPictures.prepare([data], RESOLUTION, tokenizer, output / "data", languages=["en"])
    shown = [(concept,) for concept, _ in known_pairs() for _ in range(PICTURES_PER_PAIR)]
    config = RunConfig(output=output, steps=2000, batch_size=64, learning_rate=2e-3)
    return train_recogniser(pictures, shown, config).eval()


@torch.inference_mode()
def recognised(
    pipeline: StableDiffusionPipeline, language: str, recogniser: Recogniser, count: int
) -> tuple[float, Image.Image]:
    """The share of drawn pictures with the concept in the style, in percent, and the first of them."""
    pipeline.set_progress_bar_config(disable=True)
    chosen = pairs(unseen=True)[:count]
    drawn: list[Image.Image] = []
    for start in range(0, count, TOGETHER):
        prompts = [captions(concept, colour, language)[0] for concept, colour in chosen[start : start + TOGETHER]]
        generators = [torch.Generator().manual_seed(start + number) for number in range(len(prompts))]
        drawn += pipeline(
            prompts, num_inference_steps=25, guidance_scale=usual_guidance_scale("emoji-m9"), generator=generators
        ).images
    right = 0
    for image, guess, (concept, colour) in zip(drawn, recogniser.concepts_of(drawn), chosen, strict=True):
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        far = {
            style: float(np.square(pixels - np.asarray(render(concept, colour, style=style))).mean())
            for style in ("plain", STYLE)
        }
        right += guess == concept and far[STYLE] < far["plain"]
    page = Image.new("RGB", (RESOLUTION * TOGETHER, RESOLUTION))
    for number, image in enumerate(drawn[:TOGETHER]):
        page.paste(image, (number * RESOLUTION, 0))
    return 100 * right / count, page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/styles"), help="a run that was stopped goes on here")
    parser.add_argument("--steps", type=int, default=8000, help="of the English model's training")
    parser.add_argument("--align-steps", type=int, default=4000, help="of the alignment")
    parser.add_argument("--style-steps", type=int, default=1500, help="of the fine-tuning to the other style")
    parser.add_argument("--prompts", type=int, default=100)
    options = parser.parse_args()
    plain = write_data(options.output / "plain", scenes=False)
    data = write_data(options.output / STYLE, ("en",), STYLE, scenes=False)
    english = english_model(plain, options.output / "english", options.steps)
    target = fine_tuned(english, data, options.output / "fine-tuned", options.style_steps)
    alt = aligned(english, plain, options.output / "aligned", options.align_steps)
    recogniser = recogniser_of(data, english, options.output / "recogniser")
    merged = options.output / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merge(english, alt, target, merged, what="keys-and-values")

    before = StableDiffusionPipeline.from_pretrained(target)
    after = AltDiffusionPipeline.from_pretrained(merged)
    rows: dict[str, Any] = {}
    pages = []
    for name, pipeline, language in (
        ("before_en", before, "en"),
        ("before_zh", before, "zh"),
        ("after_zh", after, "zh"),
        ("after_en", after, "en"),
    ):
        rows[name], page = recognised(pipeline, language, recogniser, options.prompts)
        pages.append(page)
        print(f"{name}: {rows[name]:.0f}% recognised in the style", flush=True)
    sheet = Image.new("RGB", (pages[0].width, RESOLUTION * len(pages)))
    for number, page in enumerate(pages):
        sheet.paste(page, (0, number * RESOLUTION))
    sheet.save(options.output / "before-and-after.png")
    print(json.dumps({**rows, "unit": "% of prompts", "prompts": options.prompts}))
    report(
        "merge-styles", rows["after_zh"], rows["before_en"], "% recognised", rows["after_zh"] / rows["before_en"], 0.8
    )


if __name__ == "__main__":
    main()
