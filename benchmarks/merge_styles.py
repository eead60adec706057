"""Whether a merge makes a fine-tuned model draw from Chinese prompts: emoji in another style.

The base is an English diffusion model: emoji-m18's UNet on the text tower of its English teacher, for which the keys
and values of the cross-attention are trained. It is fine-tuned to draw in orange with outlines. Then `merge` gives the
fine-tuned model the languages of emoji-m18. It draws from English and Chinese prompts before and after, for held-out
pairs of a thing and a plain ground. A picture counts if the nearest of all renders on its ground, plain and outlined,
is the outlined one of the thing.

    python benchmarks/merge_styles.py [--output build/styles] [--things 24] [--prompts 30]

It takes about twenty minutes on two cores, and continues after a stop.
"""

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageFilter, ImageOps
from report import report
from transformers import CLIPTextModel, CLIPTokenizer

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.merge import merge
from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18, emoji_m18_folder
from altdiffusion_clip.drawing.settings import usual_guidance_scale
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import Concept, Ground, colours, drawn_concepts, is_held_out
from altdiffusion_clip.emoji.renders import RESOLUTION, sprite
from altdiffusion_clip.emoji.scenes import Scene, arrangements
from altdiffusion_clip.files import atomic_folder
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.configs import AlignConfig
from altdiffusion_clip.training.data.captioned import CAPTIONS_FILE
from altdiffusion_clip.training.models import MODEL

TOGETHER = 10
PLACES = range(len(arrangements("one", is_painted=False)))


def plain(concept: Concept, ground: Ground, place: int) -> Image.Image:
    """A thing as emoji-m18 draws it."""
    return Scene("one", (concept,), ground, place).render()


def outlined(concept: Concept, ground: Ground, place: int) -> Image.Image:
    """The same in shades of orange, with a dark outline of three pixels."""
    (placement,) = arrangements("one", is_painted=False)[place]
    glyph = ImageOps.expand(sprite(concept.code, placement.size), 3)
    shape = glyph.getchannel("A")
    shades = ImageOps.colorize(ImageOps.grayscale(glyph.convert("RGB")), (120, 40, 0), (255, 225, 170))
    shades.putalpha(shape)
    drawn = Image.new("RGBA", glyph.size, (20, 20, 60, 0))
    drawn.putalpha(shape.filter(ImageFilter.MaxFilter(7)))
    drawn.alpha_composite(shades)
    picture = plain(concept, ground, place)
    left, top = (RESOLUTION - drawn.width) // 2 + placement.dx, (RESOLUTION - drawn.height) // 2 + placement.dy
    picture.paste(drawn, (left, top), drawn)
    return picture


STYLES = {"plain": plain, "outlined": outlined}


def pairs(things: Sequence[Concept], unseen: bool) -> list[tuple[Concept, Ground]]:
    """Things on plain grounds, in a fixed random order."""
    found = [(thing, ground) for thing in things for ground in colours() if is_held_out(thing, ground) == unseen]
    random.Random(0).shuffle(found)
    return found


def write_pictures(folder: Path, things: Sequence[Concept], style: str) -> Path:
    """Writes pictures with English captions, unless they exist."""
    if folder.exists():
        return folder
    with atomic_folder(folder) as temporary, (temporary / CAPTIONS_FILE).open("w", encoding="utf-8") as file:
        for number, (thing, ground) in enumerate(pairs(things, unseen=False)):
            STYLES[style](thing, ground, number % len(PLACES)).save(temporary / f"{number}.png")
            said = {"en": [*captions(thing, ground, "en"), *captions(thing, None, "en")[:2]]}
            file.write(json.dumps({"image": f"{number}.png", "captions": said}) + "\n")
    return folder


def write_english(folder: Path) -> Path:
    """Writes a Stable Diffusion of emoji-m18's autoencoder and UNet and the English teacher's text tower."""
    if folder.exists():
        return folder
    ours, teacher = AltDiffusionPipeline.from_pretrained(EMOJI_M18), emoji_m18_folder() / "teacher"
    pipeline = StableDiffusionPipeline(
        vae=ours.vae,
        text_encoder=CLIPTextModel.from_pretrained(teacher, dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(teacher),
        unet=ours.unet,
        scheduler=ours.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)
    return folder


def trained(model: Path, data: Path, output: Path, **settings: Any) -> Path:
    """Runs `align` on a model, with English captions."""
    common: dict[str, Any] = {"batch_size": 16, "languages": ["en"], "decay_from": 0.5, "warmup_steps": 20}
    align(AlignConfig(output=output, model=str(model), data=[data], **common, **settings))
    return output / MODEL


def nearest(image: Image.Image, ground: Ground) -> tuple[Concept, str]:
    """The thing and the style of the render on a ground that is nearest to a picture."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)

    def renders() -> Iterator[tuple[float, Concept, str]]:
        for thing in drawn_concepts():
            for style, draw in STYLES.items():
                for place in PLACES:
                    render = np.asarray(draw(thing, ground, place), dtype=np.float32)
                    yield float(np.square(pixels - render).mean()), thing, style

    _, thing, style = min(renders(), key=lambda each: each[0])
    return thing, style


@torch.no_grad()
def recognised(
    pipeline: StableDiffusionPipeline, language: str, asked: Sequence[tuple[Concept, Ground]]
) -> tuple[float, Image.Image]:
    """The share of drawn pictures with the thing in the style, in percent, and the first of them."""
    pipeline.set_progress_bar_config(disable=True)
    drawn: list[Image.Image] = []
    for start in range(0, len(asked), TOGETHER):
        prompts = [captions(thing, ground, language)[0] for thing, ground in asked[start : start + TOGETHER]]
        generators = [torch.Generator().manual_seed(start + number) for number in range(len(prompts))]
        drawn += pipeline(
            prompts, num_inference_steps=20, guidance_scale=usual_guidance_scale(EMOJI_M18), generator=generators
        ).images
    found = [nearest(image, ground) for image, (_, ground) in zip(drawn, asked, strict=True)]
    right = [each == (thing, "outlined") for each, (thing, _) in zip(found, asked, strict=True)]
    page = Image.new("RGB", (RESOLUTION * TOGETHER, RESOLUTION))
    for number, image in enumerate(drawn[:TOGETHER]):
        page.paste(image, (number * RESOLUTION, 0))
    return 100 * sum(right) / len(right), page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/styles"), help="a run that was stopped goes on here")
    parser.add_argument("--things", type=int, default=24, help="of emoji-m18's world")
    parser.add_argument("--align-steps", type=int, default=400, help="of the keys and values for English")
    parser.add_argument("--style-steps", type=int, default=200, help="of the fine-tuning to the other style")
    parser.add_argument("--prompts", type=int, default=30)
    options = parser.parse_args()
    things = drawn_concepts()[: options.things]
    data = {style: write_pictures(options.output / "pictures" / style, things, style) for style in STYLES}
    english = trained(
        write_english(options.output / "untrained"),
        data["plain"],
        options.output / "english",
        keys_and_values_steps=options.align_steps,
        steps=0,
        learning_rate=8e-4,
    )
    target = trained(
        english,
        data["outlined"],
        options.output / "fine-tuned",
        steps=options.style_steps,
        learning_rate=2e-4,
        ema_decay=0.98,
    )
    merged = options.output / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merge(english, EMOJI_M18, target, merged, what="keys-and-values")

    before, after = StableDiffusionPipeline.from_pretrained(target), AltDiffusionPipeline.from_pretrained(merged)
    asked = pairs(things, unseen=True)[: options.prompts]
    rows: dict[str, Any] = {}
    pages = []
    for name, pipeline, language in (
        ("before_en", before, "en"),
        ("before_zh", before, "zh"),
        ("after_zh", after, "zh"),
        ("after_en", after, "en"),
    ):
        rows[name], page = recognised(pipeline, language, asked)
        pages.append(page)
        print(f"{name}: {rows[name]:.0f}% recognised in the style", flush=True)
    sheet = Image.new("RGB", (pages[0].width, RESOLUTION * len(pages)))
    for number, page in enumerate(pages):
        sheet.paste(page, (0, number * RESOLUTION))
    sheet.save(options.output / "before-and-after.png")
    print(json.dumps({**rows, "unit": "% of prompts", "prompts": len(asked)}))
    report(
        "merge-styles", rows["after_zh"], rows["before_en"], "% recognised", rows["after_zh"] / rows["before_en"], 0.8
    )


if __name__ == "__main__":
    main()
