"""Calls pipelines with settings."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.images import ImageError, load_image
from altdiffusion_clip.schedulers import scheduler_like

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

CHANGED_STRENGTH, PAINTED_STRENGTH = 0.8, 1.0
"""diffusers' defaults for changing a whole picture and for inpainting."""
NOT_A_NUMBER = "the picture is not a number; try --dtype float32"
REFUSED = "the model's safety checker refused the picture"


def draw_batch(pipeline: "AltDiffusionPipeline", settings: Settings) -> list[Image.Image | None]:
    """Draws the pictures of one batch from their prompts. A picture that is not a number becomes None.

    Each picture's latents come from a CPU generator with its own seed, so they do not depend on the batch or the
    device.
    """
    size = {"height": settings.height, "width": settings.width}
    return [None if isinstance(drawn, str) else drawn for drawn in _draw(pipeline, settings, settings.is_alone, size)]


def _draw(pipeline: Any, settings: Settings, one_by_one: bool, more: dict[str, Any]) -> list[Image.Image | str]:
    """The pictures of a batch; in place of a failed one, the reason."""
    prompts = list(settings.batch_prompts or (settings.prompt,) * len(settings.batch_seeds))
    seeds = list(settings.batch_seeds)
    parts = (
        [([prompt], [seed]) for prompt, seed in zip(prompts, seeds, strict=True)] if one_by_one else [(prompts, seeds)]
    )
    drawn: list[Image.Image | str] = []
    for some, their_seeds in parts:
        given = call_pipeline(pipeline, settings, prompts=some, seeds=their_seeds, **more)
        refused = getattr(given, "nsfw_content_detected", None) or [False] * len(some)
        for image, is_refused in zip(pictures_of(given.images), refused, strict=True):
            drawn.append(REFUSED if is_refused else NOT_A_NUMBER if image is None else image)
    return drawn


def call_pipeline(
    pipeline: Any, settings: Settings, prompts: Sequence[str] = (), seeds: Sequence[int] = (), **more: Any
) -> Any:
    """Calls any AltDiffusion pipeline for one batch.

    Args:
        pipeline: the pipeline.
        settings: of the batch. Sizes and pictures go into `more`, because not every pipeline takes them.
        prompts: one for each picture; by default the prompt of the settings for each of its `batch_seeds`.
        seeds: likewise.
        **more: further arguments of the call.

    Returns:
        The pipeline's output for `output_type="np"`.

    Raises:
        UserError: the scheduler does not exist.
    """
    seeds = seeds or settings.batch_seeds
    # A prompt that is drawn several times is encoded only once.
    one = len(set(prompts)) < 2
    prompt: Any = (prompts[0] if prompts else settings.prompt) if one else list(prompts)
    pipeline.enable_long_prompts(settings.prompt_windows)
    with scheduled(pipeline, settings.scheduler):
        return pipeline(
            prompt,
            negative_prompt=settings.negative_prompt if one else [settings.negative_prompt] * len(prompts),
            num_images_per_prompt=len(seeds) if one else 1,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
            **more,
        )


class Drawer:
    """Draws any settings with one pipeline: from prompts, from other pictures, with LoRAs.

    Args:
        pipeline: for text to image; the pipelines for other tasks share its components.
    """

    def __init__(self, pipeline: "AltDiffusionPipeline") -> None:
        self.pipeline = pipeline
        self._lora = ""
        self._loaded: dict[str, str] = {}  # adapter names by path or hub id

    # Cached, because a pipeline caches the prompts that it has encoded.
    @functools.cached_property
    def changing(self) -> Any:
        """The image-to-image pipeline."""
        from altdiffusion_clip.pipelines.alt_diffusion import AltDiffusionImg2ImgPipeline

        return self._silent(AltDiffusionImg2ImgPipeline)

    @functools.cached_property
    def inpainting(self) -> Any:
        """The inpainting pipeline."""
        from altdiffusion_clip.pipelines.alt_diffusion import AltDiffusionInpaintPipeline

        return self._silent(AltDiffusionInpaintPipeline)

    def _silent(self, kind: Any) -> Any:
        pipeline = kind.from_pipe(self.pipeline)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def draw(self, settings: Settings) -> list[Image.Image | str]:
        """Draws the pictures of one batch. In place of a failed one, it returns the reason in one line.

        Raises:
            UserError: a LoRA, a picture or a mask cannot be used.
        """
        self._take_loras(settings.lora)
        if not settings.image:
            size = {"height": settings.height, "width": settings.width}
            return _draw(self.pipeline, settings, settings.is_alone, size)
        multiple = size_multiple(self.pipeline)
        image = _opened(settings.image)
        width, height = (
            given or max(multiple, round(side / multiple) * multiple)
            for given, side in zip((settings.width, settings.height), image.size, strict=True)
        )
        more: dict[str, Any] = {"image": image.resize((width, height), Image.Resampling.LANCZOS)}
        pipeline, usual = self.changing, CHANGED_STRENGTH
        if settings.mask:
            pipeline, usual = self.inpainting, PAINTED_STRENGTH
            mask = _opened(settings.mask).convert("L").resize((width, height))
            more |= {"mask_image": mask, "height": height, "width": width}
        more["strength"] = usual if settings.strength is None else settings.strength
        return _draw(pipeline, settings, True, more)

    def _take_loras(self, wanted: str) -> None:
        if wanted == self._lora:
            return
        names, weights = [], []
        for place, weight in loras_of(wanted):
            if place not in self._loaded:
                name = f"lora{len(self._loaded)}"
                try:
                    self.pipeline.load_lora_weights(place, adapter_name=name)
                except Exception as error:  # peft, safetensors and the hub raise their own errors
                    raise UserError(f"the LoRA {place} cannot be used: {one_line(error)}") from error
                self._loaded[place] = name
            names.append(self._loaded[place])
            weights.append(weight)
        if names:
            self.pipeline.enable_lora()
            self.pipeline.set_adapters(names, weights)
        else:
            self.pipeline.disable_lora()
        self._lora = wanted


def loras_of(given: str) -> list[tuple[str, float]]:
    """Parses LoRAs and their weights from "NAME:WEIGHT, NAME:WEIGHT". The default weight is 1.

    Raises:
        UserError: a weight is not a number.

    Example:
        >>> loras_of("style.safetensors:0.8, owner/name")
        [('style.safetensors', 0.8), ('owner/name', 1.0)]
    """
    found = []
    for each in filter(None, (part.strip() for part in given.split(","))):
        place, colon, weight = each.rpartition(":")
        try:
            found.append((place, float(weight)) if colon else (each, 1.0))
        except ValueError:
            raise UserError(f"the LoRA {each!r} has no number for a weight; write NAME:0.8") from None
    return found


def _opened(path: str) -> Image.Image:
    try:
        return load_image(Path(path))
    except ImageError as error:
        raise UserError(f"{path}: {error}") from None


@contextmanager
def scheduled(pipeline: Any, name: str) -> Iterator[None]:
    """Gives a pipeline another scheduler for the duration of a block.

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
    """The number of pixels that sizes must be multiples of: the UNet halves latents after each block but the last."""
    return int(pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1))


def pictures_of(arrays: np.ndarray) -> list[Image.Image | None]:
    """Converts a pipeline's `output_type="np"` to pictures, with None for one that is not a number.

    Args:
        arrays: float (pictures, height, width, 3), in [0, 1].
    """
    return [Image.fromarray(np.rint(a * 255).astype(np.uint8)) if np.isfinite(a).all() else None for a in arrays]
