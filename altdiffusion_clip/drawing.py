"""Drawing pictures from settings that can be kept with them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import scheduler_like

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


def usual_guidance_scale(model: str) -> float:
    """The guidance scale that suits a model, by the name that the user gave it."""
    return EMOJI_GUIDANCE_SCALE if model == EMOJI_M9 else GUIDANCE_SCALE


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
        scheduler: a name of `altdiffusion_clip.schedulers`; empty for the model's own.
        strength: of a change to another picture, which the settings do not hold; None where there was none.
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
    scheduler: str = ""
    strength: float | None = None


def draw_batch(pipeline: "AltDiffusionPipeline", settings: Settings) -> list[Image.Image | None]:
    """Draws the pictures of one batch, None for one that came out as not a number.

    Each picture's latents come from a CPU generator of its own seed, so they do not depend on the batch or
    the device.
    """
    return pictures_of(call_pipeline(pipeline, settings, height=settings.height, width=settings.width).images)


def call_pipeline(pipeline: Any, settings: Settings, **more: Any) -> Any:
    """Calls any AltDiffusion pipeline for one batch.

    Args:
        pipeline: the pipeline.
        settings: of the batch; sizes and pictures are left to `more`, since not every pipeline takes them.
        **more: of the pipeline's call.

    Returns:
        What the pipeline gives as `output_type="np"`.

    Raises:
        UserError: the settings name a scheduler that there is not.
    """
    seeds = settings.batch_seeds
    pipeline.enable_long_prompts(settings.prompt_windows)
    with scheduled(pipeline, settings.scheduler):
        return pipeline(
            settings.prompt,
            negative_prompt=settings.negative_prompt,
            num_images_per_prompt=len(seeds),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **more,
        )


@contextmanager
def scheduled(pipeline: Any, name: str) -> Iterator[None]:
    """Lends a pipeline another scheduler.

    Args:
        pipeline: of diffusers.
        name: of `altdiffusion_clip.schedulers`; empty for the pipeline's own.

    Raises:
        UserError: there is no such scheduler.
    """
    own = pipeline.scheduler
    if name:
        pipeline.scheduler = scheduler_like(own, name)
    try:
        yield
    finally:
        pipeline.scheduler = own


def size_multiple(pipeline: Any) -> int:
    """What heights and widths must be multiples of, in pixels: the UNet halves latents once per block but the last."""
    return int(pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1))


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
        settings = Settings(**{**values, "batch_seeds": tuple(values["batch_seeds"])})
        for field in fields(Settings):
            _check_kind(field.name, getattr(settings, field.name), field.type)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"the settings in {path} are damaged ({error})") from error
    return settings


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if name == "batch_seeds":
        right = all(isinstance(seed, int) for seed in value)
    else:
        right = isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))
    if not right:
        raise TypeError(f"{name} is {value!r}")
