"""Draws docs/nine-languages.png: emoji-m9's nine languages across, concepts down, the README's first picture.

No prompt on it was ever trained on: neither these things on these backgrounds, nor these two beside each other. Each is
drawn once, from the same noise in every language; nothing was picked.

    python scripts/nine_languages.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale
from altdiffusion_clip.emoji.captions import captions, scene_captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, find_colour, find_concept

ALONE = (
    ("cat", "blue"),
    ("panda", "red"),
    ("penguin", "black"),
    ("rooster", "pink"),
    ("strawberry", "white"),
    ("pizza", "green"),
    ("rocket", "purple"),
)
TOGETHER = (("cat", "horse"), ("dog", "pig"), ("red apple", "cow"))
SEED = 0
SIDE, GAP, NAME, HEAD = 88, 4, 104, 22


def rows() -> list[tuple[str, list[str]]]:
    """A label of two lines, and the prompt in each language."""
    alone = [
        (f"{name}\non {colour}", [captions(find_concept(name), find_colour(colour), code)[0] for code in LANGUAGES])
        for name, colour in ALONE
    ]
    together = [
        (
            f"{left} left,\n{right} right",
            [scene_captions(find_concept(left), find_concept(right), None, code)[2] for code in LANGUAGES],
        )
        for left, right in TOGETHER
    ]
    return alone + together


def main() -> None:
    """Writes the page and its prompts."""
    pipeline = AltDiffusionPipeline.from_pretrained(EMOJI_M9)
    pipeline.set_progress_bar_config(disable=True)
    font = ImageFont.load_default(14)
    size = (NAME + len(LANGUAGES) * (SIDE + GAP), HEAD + len(rows()) * (SIDE + GAP))
    page = Image.new("RGB", size, "white")
    text = ImageDraw.Draw(page)
    for column, code in enumerate(LANGUAGES):
        text.text((NAME + column * (SIDE + GAP) + SIDE // 2, 3), code, "black", font, anchor="ma")
    for row, (label, prompts) in enumerate(rows()):
        top = HEAD + row * (SIDE + GAP)
        text.multiline_text((GAP, top + SIDE // 2 - 16), label, "black", font)
        for column, prompt in enumerate(prompts):
            (image,) = draw_batch(
                pipeline, Settings(prompt, SEED, (SEED,), EMOJI_M9, guidance_scale=usual_guidance_scale("emoji-m9"))
            )
            assert image is not None
            page.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (NAME + column * (SIDE + GAP), top))
    folder = Path(__file__).parents[1] / "docs"
    page.save(folder / "nine-languages.png", optimize=True)
    (folder / "nine-languages.txt").write_text(
        "\n".join(prompt for _, prompts in rows() for prompt in prompts) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
