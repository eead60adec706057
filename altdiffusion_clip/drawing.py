"""Drawing pictures from settings that can be kept with them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

SETTINGS_KEY = "altdiffusion"
"""Name of the PNG text chunk that holds what is needed to draw the picture again."""

STEPS = 20
"""Steps of the scheduler, where the user names no number."""

GUIDANCE_SCALE = 7.5
"""diffusers' default for Stable Diffusion."""

EMOJI_GUIDANCE_SCALE = 3.0
"""Where emoji-m9's pictures look cleanest; more exaggerates their contrast."""


@dataclass(frozen=True)
class Settings:
    """All that decides a picture's pixels, beside the weights and the machine.

    Attributes:
        prompt: what to draw.
        seed: of this picture's first latents.
        batch_seeds: seeds of the pictures that were drawn in one batch with it, in order, since batches of
            another size may round differently.
        model: as the user named it.
        negative_prompt: what to keep out.
        num_inference_steps: of the scheduler.
        guidance_scale: of classifier-free guidance.
        height: in pixels; None for the model's own.
        width: likewise.
        device: where it was drawn.
        dtype: of weights and arithmetic.
        prompt_windows: of 77 tokens each, which the prompt may take.
        fast: the dtype of an optimized pipeline's UNet, whose pictures are nearly the same; empty if it was not.
    """

    prompt: str
    seed: int
    batch_seeds: tuple[int, ...]
    model: str
    negative_prompt: str = ""
    num_inference_steps: int = STEPS
    guidance_scale: float = GUIDANCE_SCALE
    height: int | None = None
    width: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    prompt_windows: int = 1
    fast: str = ""


def draw_batch(pipeline: "AltDiffusionPipeline", settings: Settings) -> list[Image.Image | None]:
    """Draws the pictures of one batch, None for one that came out as not a number.

    Each picture's latents come from a CPU generator of its own seed, so they do not depend on the batch or
    the device.
    """
    seeds = settings.batch_seeds
    pipeline.enable_long_prompts(settings.prompt_windows)
    arrays = pipeline(
        settings.prompt,
        negative_prompt=settings.negative_prompt,
        num_images_per_prompt=len(seeds),
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        height=settings.height,
        width=settings.width,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    return pictures_of(arrays)


def pictures_of(arrays: np.ndarray) -> list[Image.Image | None]:
    """Pictures of what a pipeline gives as `output_type="np"`, None for one that is not a number.

    Args:
        arrays: float (pictures, height, width, 3), in [0, 1].
    """
    return [Image.fromarray(np.rint(a * 255).astype(np.uint8)) if np.isfinite(a).all() else None for a in arrays]


def save_with_settings(image: Image.Image, settings: Settings, path: Path) -> None:
    """Writes a PNG that `settings_of` reads."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(SETTINGS_KEY, json.dumps(asdict(settings), ensure_ascii=False))
    image.save(path, pnginfo=info)


def settings_of(path: Path) -> Settings:
    """Reads what a PNG was drawn with.

    Raises:
        UserError: it was not drawn by this project, or its settings are damaged.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(SETTINGS_KEY)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not a picture'}") from error
    if text is None:
        raise UserError(f"{path} holds no settings; --from-png takes a PNG that `altdiffusion generate` has written")
    try:
        values = json.loads(text)
        return Settings(**{**values, "batch_seeds": tuple(values["batch_seeds"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"the settings in {path} are damaged ({error})") from error
