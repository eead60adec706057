"""What every tab needs."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.guard import Guard
from altdiffusion_clip.demo.labels import Labels
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.stops import Stops
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.settings import Settings

BESIDE_THE_QUEUE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that only change the page."""

LARGEST = 2
"""Most that heights and widths may be, as a multiple of the model's own side."""

MOST_GUIDANCE = 20.0
MOST_SEED = 2**53 - 1
"""The largest integer that a browser represents exactly."""

RANDOM_SEED = -1
MOST_RANDOM_SEED = 2**32 - 1
"""Random seeds stay below this, so that they can be read aloud."""


@dataclass
class Context:
    """What every part of the page needs.

    Attributes:
        studio: draws and ranks.
        limits: of a call.
        metrics: of the server.
        guard: wraps every call.
        labels: the texts that change with the language.
        language: the component that selects it.
        accepted: whether the visitor has accepted the model's licence.
        stops: drawings to stop.
    """

    studio: Studio
    limits: Limits
    metrics: Metrics
    language: gr.Radio
    accepted: gr.Checkbox
    labels: Labels
    guard: Guard
    stops: Stops = field(default_factory=Stops)

    def settings(
        self,
        prompt: str,
        negative: str,
        steps: float,
        guidance: float,
        seed: float,
        scheduler: str,
        accepted: bool,
        width: float | None = None,
        height: float | None = None,
        **more: Any,
    ) -> Settings:
        """The settings of a picture, from a visitor's inputs.

        Raises:
            Refusal: an input exceeds a limit, or the licence has not been accepted.
        """
        studio, limits = self.studio, self.limits
        licence = studio.licence
        if licence is not None and licence.restricts_use and not accepted:
            raise Refusal("accept_first")
        prompt = limits.prompt(prompt)
        negative = limits.prompt(negative) if (negative or "").strip() else ""
        limits.within(
            steps=(steps, 1, limits.steps), guidance=(guidance, 1, MOST_GUIDANCE), seed=(seed, RANDOM_SEED, MOST_SEED)
        )
        if seed == RANDOM_SEED:
            seed = secrets.randbelow(MOST_RANDOM_SEED)
        size: dict[str, Any] = {}
        for name, value in (("width", width), ("height", height)):
            if value is None or value == studio.side:
                continue
            limits.within(**{name: (value, studio.multiple, LARGEST * studio.side)})
            if value % studio.multiple:
                raise Refusal("bad_size", field=name, multiple=studio.multiple)
            size[name] = int(value)
        return studio.settings(
            prompt,
            int(seed),
            negative_prompt=negative,
            num_inference_steps=int(steps),
            guidance_scale=float(guidance),
            scheduler=scheduler or "",
            **size,
            **more,
        )
