"""What the demo does, without the page around it: drawing with previews, ranking, restoring settings."""

import csv
import io
import json
import queue
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.drawing import (
    EMOJI_GUIDANCE_SCALE,
    GUIDANCE_SCALE,
    Settings,
    pictures_of,
    save_with_settings,
    settings_of,
)
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.prompt_weights import parse_weights
from altdiffusion_clip.scoring import AltCLIPScorer

PREVIEWS = 5
"""Of each picture, while it is drawn."""


@dataclass(frozen=True)
class Progress:
    """How far a drawing is.

    Attributes:
        number: of the picture, from 1.
        step: that has been done, from 1.
        steps: in all.
        preview: of the latents as they are; None where none was made.
    """

    number: int
    step: int
    steps: int
    preview: Image.Image | None


@dataclass(frozen=True)
class Drawn:
    """A finished picture.

    Attributes:
        image: the picture.
        settings: what it was drawn with.
        cosine: with its prompt, in [-1, 1]; None if the model brings no scorer.
    """

    image: Image.Image
    settings: Settings
    cosine: float | None

    def save(self, path: Path) -> None:
        """Writes a PNG that holds its settings."""
        save_with_settings(self.image, self.settings, path)


class Studio:
    """A model, drawing one picture at a time.

    Args:
        pipeline: that draws.
        scorer: that ranks; None where the model brings none.
        model: what the pipeline is called.
    """

    def __init__(self, pipeline: AltDiffusionPipeline, scorer: AltCLIPScorer | None, model: str) -> None:
        self.pipeline, self.scorer, self.model = pipeline, scorer, model
        self._one_at_a_time = threading.Lock()

    @property
    def usual_guidance(self) -> float:
        """The guidance scale that suits the model."""
        return EMOJI_GUIDANCE_SCALE if self.model == EMOJI_M9 else GUIDANCE_SCALE

    def settings(self, prompt: str, seed: int, **more: Any) -> Settings:
        """Settings of a picture that is drawn alone."""
        device, dtype = str(self.pipeline.device), str(self.pipeline.unet.dtype).removeprefix("torch.")
        return Settings(prompt, seed, (seed,), self.model, device=device, dtype=dtype, **more)

    def draw(self, first: Settings, count: int) -> Iterator[Progress | Drawn | None]:
        """Draws pictures with the seeds that follow each other.

        Closing the iterator stops the drawing at its next step.

        Args:
            first: of the first picture; the others have the next seeds.
            count: how many.

        Yields:
            `Progress` at each step; each picture as it is finished, or None for one that came out as not a number.
        """
        for number in range(count):
            seed = first.seed + number
            yield from self._draw_one(replace(first, seed=seed, batch_seeds=(seed,)), number + 1)

    def _draw_one(self, settings: Settings, number: int) -> Iterator[Progress | Drawn | None]:
        events: queue.Queue[Progress | np.ndarray | Exception] = queue.Queue()
        stopped = threading.Event()
        steps = settings.num_inference_steps
        with_preview = {round((i + 1) * steps / (PREVIEWS + 1)) for i in range(PREVIEWS)}

        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            del timestep
            pipeline._interrupt = stopped.is_set()
            preview = None
            if step + 1 in with_preview and not stopped.is_set():
                preview = self._look_at(tensors["latents"])
            events.put(Progress(number, step + 1, steps, preview))
            return tensors

        def work() -> None:
            try:
                with self._one_at_a_time, torch.no_grad():
                    if not stopped.is_set():
                        self.pipeline.enable_long_prompts(settings.prompt_windows)
                        arrays = self.pipeline(
                            settings.prompt,
                            negative_prompt=settings.negative_prompt,
                            num_inference_steps=steps,
                            guidance_scale=settings.guidance_scale,
                            generator=[torch.Generator().manual_seed(settings.seed)],
                            output_type="np",
                            callback_on_step_end=after_step,
                        ).images
                        events.put(arrays)
            except Exception as error:  # it is raised in the caller's thread
                events.put(error)

        thread = threading.Thread(target=work, name="drawing", daemon=True)
        thread.start()
        try:
            while True:
                event = events.get()
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Progress):
                    yield event
                    continue
                (image,) = pictures_of(event)
                yield None if image is None else Drawn(image, settings, self.cosine(settings.prompt, image))
                return
        finally:
            stopped.set()
            thread.join()

    def cosine(self, prompt: str, image: Image.Image) -> float | None:
        """How well a picture fits a prompt."""
        if self.scorer is None:
            return None
        return float(self.scorer.score(parse_weights(prompt).text, image).cosine)

    def _look_at(self, latents: torch.Tensor) -> Image.Image | None:
        vae = self.pipeline.vae
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        array = (pixels[:1].float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return pictures_of(array)[0]


def best_first(drawn: Sequence[Drawn], keep: int) -> list[Drawn]:
    """The best pictures; without scores, the first."""
    ordered = sorted(drawn, key=lambda each: -(each.cosine if each.cosine is not None else 0.0))
    return ordered[:keep]


def write_all(drawn: Sequence[Drawn], folder: Path) -> tuple[list[Path], Path]:
    """Writes PNGs, and a zip of them with `results.json`.

    Returns:
        The PNGs, in order, and the zip.
    """
    paths, rows = [], []
    for rank, each in enumerate(drawn, start=1):
        paths.append(folder / f"{rank:02d}-seed{each.settings.seed}.png")
        each.save(paths[-1])
        cosine = None if each.cosine is None else round(each.cosine, 6)
        rows.append({"rank": rank, "file": paths[-1].name, "cosine": cosine, "settings": asdict(each.settings)})
    archive = folder / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.name)
        file.writestr("results.json", json.dumps(rows, ensure_ascii=False, indent=1))
    return paths, archive


@dataclass(frozen=True)
class Comparison:
    """Pictures against prompts.

    Attributes:
        names: of the pictures, in the order of the first prompt's ranking.
        prompts: the columns.
        cosines: float (pictures, prompts), in [-1, 1].
        broken: a line for each picture that cannot be read.
    """

    names: list[str]
    prompts: list[str]
    cosines: np.ndarray
    broken: list[str]

    def as_csv(self) -> str:
        """A table with the unit in its first cell."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["picture (cosine)", *self.prompts])
        for name, row in zip(self.names, self.cosines, strict=True):
            writer.writerow([name, *(f"{value:.6f}" for value in row)])
        return out.getvalue()


def compare(scorer: AltCLIPScorer, prompts: Sequence[str], paths: Sequence[Path]) -> Comparison:
    """Scores every picture against every prompt, best of the first prompt first."""
    embeds, broken = scorer.encode_images(list(paths))
    bad = {image.index for image in broken}
    good = [place for place in range(len(paths)) if place not in bad]
    cosines = (embeds[good] @ scorer.encode_texts(list(prompts)).T).cpu().numpy()
    order = np.argsort(-cosines[:, 0], kind="stable") if len(good) else np.empty(0, int)
    lines = [f"{paths[image.index].name}: {image.reason}" for image in broken]
    return Comparison([paths[good[place]].name for place in order], list(prompts), cosines[order], lines)


def restored(path: Path) -> Settings:
    """The settings that a picture holds.

    Raises:
        UserError: it holds none.
    """
    try:
        return settings_of(path)
    except UserError:
        raise UserError("no_settings") from None
