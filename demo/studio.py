"""The demo without its page: draws and changes pictures with previews."""

import math
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from altdiffusion_clip.checkpoints.licences import Licence, card_of, licence_of
from altdiffusion_clip.demo.source import Source
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.calls import Drawer, call_pipeline, pictures_of, size_multiple
from altdiffusion_clip.drawing.png_text import save_with_settings
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.ensembles import Panel
from altdiffusion_clip.judges.judging import score_drawn
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.prompts.windows import split_into_windows
from altdiffusion_clip.schedulers import SCHEDULERS

PREVIEWS = 5
"""Previews per picture."""

WINDOWS = 4
"""How many windows of 77 tokens a prompt may have."""

QUOTED = 80
"""How many characters of a long prompt to quote."""


@dataclass(frozen=True)
class Progress:
    """The progress of a drawing.

    Attributes:
        number: of the picture, from 1.
        step: the last finished step, from 1.
        steps: in total.
        preview: of the current latents, or None.
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
        settings: it was drawn with.
        score: with its prompt, by the first judge; None if there is no judge.
        measure: what the score is: "cosine", in [-1, 1], or "score", without a unit.
        judges: the scores by other judges, by name.
    """

    image: Image.Image
    settings: Settings
    score: float | None
    measure: str = "cosine"
    judges: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes a PNG with its settings."""
        save_with_settings(self.image, self.settings, path)


@dataclass(frozen=True)
class Lost:
    """A picture that cannot be shown.

    Attributes:
        settings: it was drawn with.
        reason: key of the text with the reason.
    """

    settings: Settings
    reason: str


class Studio:
    """Draws with a model, one picture at a time.

    Args:
        pipeline: to draw with.
        panel: the judges, which must score pictures independently; None for no judges.
        model: name of the pipeline.

    Attributes:
        licence: of the model, if known.
        card: the text of the model's card, if its folder has one.
    """

    def __init__(self, pipeline: AltDiffusionPipeline, panel: Panel | None, model: str) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.panel, self.model = pipeline, panel, model
        self._drawer = Drawer(pipeline)
        self.bench = None if panel is None else Bench(panel)
        self.licence: Licence | None = licence_of(model)
        self.card = card_of(model)
        self._one_at_a_time = threading.Lock()
        self._closing = threading.Event()

    @property
    def side(self) -> int:
        """The side of the model's own pictures, in pixels."""
        return int(self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor)

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this, in pixels."""
        return size_multiple(self.pipeline)

    @property
    def own_scheduler(self) -> str:
        """The name of the model's own scheduler."""
        kind = type(self.pipeline.scheduler).__name__
        return next((each.sampler for each in SCHEDULERS.values() if each.diffusers == kind), kind)

    def settings(self, prompt: str, seed: int, **more: Any) -> Settings:
        """The settings of a picture that is drawn alone.

        Raises:
            Refusal: the prompt is longer than the model can read.
        """
        device, dtype = str(self.pipeline.device), str(self.pipeline.unet.dtype).removeprefix("torch.")
        windows = max(self._windows(prompt), self._windows(more.get("negative_prompt", "")))
        return Settings(prompt, seed, (seed,), self.model, device=device, dtype=dtype, prompt_windows=windows, **more)

    def _windows(self, prompt: str) -> int:
        tokenizer: Any = self.pipeline.tokenizer
        windows = split_into_windows(tokenizer, parse_weights(prompt), len(prompt) + 1).input_ids
        if len(windows) > WINDOWS:
            special = set(tokenizer.all_special_ids)
            counts = [sum(token not in special for token in window) for window in windows.tolist()]
            cut = tokenizer.decode(windows[WINDOWS:].flatten(), skip_special_tokens=True).strip()
            cut = cut if len(cut) <= QUOTED else f"{cut[:QUOTED]}…"
            raise Refusal("many_tokens", tokens=sum(counts), most=sum(counts[:WINDOWS]), cut=cut)
        return len(windows)

    def draw(self, wanted: Sequence[Settings], source: Source | None = None) -> Iterator[Progress | Drawn | Lost]:
        """Draws pictures one after another.

        Closing the iterator stops the drawing at its next step.

        Args:
            wanted: settings of each, from `settings`.
            source: the picture to change; None to draw from noise.

        Yields:
            `Progress` at each step, and each picture when it is finished. After `close` the rest is left out.
        """
        for number, settings in enumerate(wanted, start=1):
            if self._closing.is_set():
                return
            yield from self._draw_one(settings, number, source)

    def close(self) -> None:
        """Lets the current picture finish, and starts no other."""
        self._closing.set()

    def scored(self, image: Image.Image, settings: Settings) -> Drawn:
        """A finished picture with the judges' scores."""
        if self.bench is None:
            return Drawn(image, settings, None)
        panel = self.bench.panel
        members = score_drawn(parse_weights(settings.prompt).text, [image], self.bench)
        first, *others = panel.combine(members)[:, 0].tolist()
        if not math.isfinite(first):
            return Drawn(image, settings, None)
        names = [column.name for column in panel.columns[1:]]
        return Drawn(image, settings, first, panel.columns[0].measure, dict(zip(names, others, strict=True)))

    def _draw_one(self, settings: Settings, number: int, source: Source | None) -> Iterator[Progress | Drawn | Lost]:
        events: queue.Queue[Progress | Drawn | Lost | Exception] = queue.Queue()
        stopped = threading.Event()
        steps = settings.num_inference_steps
        if source is not None:
            steps = min(int(steps * source.strength), steps)
        with_preview = {round((i + 1) * steps / (PREVIEWS + 1)) for i in range(PREVIEWS)}
        if self.pipeline.safety_checker is not None:
            with_preview = set()  # nothing is shown before the safety checker has seen it

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
                        events.put(self._picture(settings, source, after_step))
            except Exception as error:  # raised in the caller's thread
                events.put(error)

        thread = threading.Thread(target=work, name="drawing", daemon=True)
        thread.start()
        try:
            while True:
                event = events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if not isinstance(event, Progress):
                    return
        finally:
            stopped.set()
            thread.join()

    def _picture(self, settings: Settings, source: Source | None, after_step: Any) -> Drawn | Lost:
        arguments: dict[str, Any] = {"height": settings.height, "width": settings.width}
        pipeline: Any = self.pipeline
        if source is not None:
            arguments = {"image": source.image, "strength": source.strength}
            pipeline = self._drawer.changing if source.mask is None else self._drawer.inpainting
            if source.mask is not None:
                arguments |= {"mask_image": source.mask, "height": source.image.height, "width": source.image.width}
        drawn = call_pipeline(pipeline, settings, callback_on_step_end=after_step, **arguments)
        if drawn.nsfw_content_detected and drawn.nsfw_content_detected[0]:
            return Lost(settings, "held_back")
        (image,) = pictures_of(drawn.images)
        if image is None:
            return Lost(settings, "broken_number")
        if source is not None:
            image = source.keep_the_rest(image)
        return self.scored(image, settings)

    def _look_at(self, latents: torch.Tensor) -> Image.Image | None:
        vae = self.pipeline.vae
        pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        array = (pixels[:1].float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return pictures_of(array)[0]


def variations(first: Settings, count: int) -> list[Settings]:
    """The settings of `count` pictures with consecutive seeds."""
    seeds = range(first.seed, first.seed + count)
    return [replace(first, seed=seed, batch_seeds=(seed,)) for seed in seeds]
