"""Draws docs/emoji-m18.png: unseen scenes of all kinds, each from a prompt in another language.

The scenes are random with a fixed seed, and each picture is the first one. Nothing is picked by hand.

    python scripts/emoji_m18.py
"""

import random
from pathlib import Path

from PIL import Image

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale
from altdiffusion_clip.emoji.captions import Claim, say
from altdiffusion_clip.emoji.concepts import drawn_concepts
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import draw_scenes

COLUMNS, ROWS, GAP = 9, 2, 8
SHARES = {"one": 4.0, "big": 1.0, "small": 1.0, "beside": 1.5, "above": 1.5, "two": 1.0, "three": 1.0}


def main() -> None:
    pipeline = AltDiffusionPipeline.from_pretrained(EMOJI_M18)
    pipeline.set_progress_bar_config(disable=True)
    scenes = draw_scenes(COLUMNS * ROWS, seed=0, shares=SHARES, things=drawn_concepts(), unseen=True)
    step = RESOLUTION + GAP
    page = Image.new("RGB", (COLUMNS * step - GAP, ROWS * step - GAP), "white")
    for number, (scene, language) in enumerate(zip(scenes, LANGUAGES, strict=True)):
        prompt = say(Claim(scene.kind, scene.things, scene.ground), language, random.Random(0))
        print(f"{language}: {prompt}")
        settings = Settings(prompt, 0, (0,), EMOJI_M18, guidance_scale=usual_guidance_scale(EMOJI_M18))
        (picture,) = draw_batch(pipeline, settings)
        if picture is not None:
            page.paste(picture, (number % COLUMNS * step, number // COLUMNS * step))
    page.save(Path(__file__).parents[1] / "docs" / "emoji-m18.png", optimize=True)


if __name__ == "__main__":
    main()
