"""The page's first part: drawing, with a preview, ranked."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.guard import guarded
from altdiffusion_clip.demo.labels import Labels
from altdiffusion_clip.demo.limits import Limits, RateLimit
from altdiffusion_clip.demo.studio import Drawn, Progress, Studio, best_first, restored, write_all
from altdiffusion_clip.demo.texts import say
from altdiffusion_clip.errors import UserError

EXAMPLES = (
    "a cat on a blue background",
    "蓝色背景上的猫",
    "manzana roja",
    "un pingouin sur fond noir",
    "собака на зелёном фоне",
    "白い背景の虎",
    "노란색 배경의 나비",
    "قطة على خلفية زرقاء",
    "una pizza su sfondo verde",
)
"""One in each of emoji-m9's languages."""


class DrawTab:
    """Components and calls of the part.

    Args:
        studio: that draws.
        limits: of a call.
        rate: of a visitor.
        labels: remembers what changes with the language.
        language: the page's choice of it.
    """

    def __init__(self, studio: Studio, limits: Limits, rate: RateLimit, labels: Labels, language: gr.Radio) -> None:
        self._studio, self._limits, self._rate = studio, limits, rate
        self._stops: dict[str, threading.Event] = {}
        with gr.Row():
            with gr.Column(scale=2):
                self.prompt = labels.label(gr.Textbox("", lines=2, elem_id="prompt"), "prompt")
                with gr.Row():
                    start = labels.label(gr.Button(variant="primary", min_width=80, elem_id="start"), "start", "value")
                    vary = labels.label(gr.Button(min_width=80, elem_id="vary"), "vary", "value")
                    stop = labels.label(gr.Button(variant="stop", min_width=80, elem_id="stop"), "stop", "value")
                examples = labels.label(
                    gr.Dataset(components=[self.prompt], samples=[[each] for each in EXAMPLES], elem_id="examples"),
                    "examples",
                )
                examples.click(lambda sample: sample[0], examples, self.prompt, api_visibility="private")
                with labels.label(gr.Accordion(open=False), "settings"):
                    self.negative = labels.label(gr.Textbox("", elem_id="negative"), "negative")
                    self.count = labels.label(gr.Slider(1, limits.pictures, 4, step=1, elem_id="count"), "count")
                    self.keep = labels.label(gr.Slider(1, limits.pictures, limits.pictures, step=1), "keep")
                    self.steps = labels.label(gr.Slider(1, limits.steps, 20, step=1, elem_id="steps"), "steps")
                    self.guidance = labels.label(gr.Slider(1, 20, studio.usual_guidance, step=0.5), "guidance")
                    self.seed = labels.label(gr.Number(0, precision=0, minimum=0, elem_id="seed"), "seed")
                    dropped = labels.label(gr.File(file_types=["image"], elem_id="restore"), "restore")
            with gr.Column(scale=3):
                status = gr.Markdown(elem_id="status")
                preview = labels.label(gr.Image(interactive=False, height=180, elem_id="preview"), "preview")
                labels.label(gr.Markdown(elem_id="best-first"), "pictures", "value")
                gallery = gr.Gallery(
                    columns=4, height="auto", object_fit="contain", format="png", show_label=False, elem_id="gallery"
                )
                archive = labels.label(gr.File(interactive=False, elem_id="archive"), "download")
        inputs = [self.prompt, self.negative, self.count, self.keep, self.steps, self.guidance, self.seed, language]
        outputs = [status, preview, gallery, archive]
        common: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal"}
        gr.on([start.click, self.prompt.submit], self.draw, inputs, outputs, api_name="draw", **common)
        vary.click(lambda seed, count: seed + count, [self.seed, self.count], self.seed, api_visibility="private").then(
            self.draw, inputs, outputs, api_visibility="private", **common
        )
        stop.click(self.stop, None, None, queue=False, api_visibility="private")
        dropped.upload(
            self.restore,
            [dropped, language],
            [self.prompt, self.negative, self.steps, self.guidance, self.seed],
            api_visibility="private",
        )

    def draw(
        self,
        prompt: str,
        negative: str,
        count: float,
        keep: float,
        steps: float,
        guidance: float,
        seed: float,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Draws pictures and ranks them, best first, with a preview while it does."""
        with guarded(self._rate, request, language):
            limits = self._limits
            prompt = limits.prompt(prompt)
            negative = limits.prompt(negative) if (negative or "").strip() else ""
            if not (1 <= count <= limits.pictures and 1 <= steps <= limits.steps and 0 <= seed < 2**62):
                raise UserError("too_many")
            more = {"num_inference_steps": int(steps), "guidance_scale": float(guidance), "negative_prompt": negative}
            first = self._studio.settings(prompt, int(seed), **more)
            yield from self._drawn(self._studio.draw(first, int(count)), int(count), int(keep), language, request)

    def _drawn(
        self,
        events: Iterator[Progress | Drawn | None],
        count: int,
        keep: int,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        stopped = self._stops[str(request.session_hash)] = threading.Event()
        drawn: list[Drawn] = []
        try:
            for event in events:
                if stopped.is_set():
                    break
                if isinstance(event, Progress):
                    values = {"number": event.number, "count": count, "step": event.step, "steps": event.steps}
                    preview = gr.skip() if event.preview is None else event.preview
                    yield say("drawing", language, **values), preview, gr.skip(), gr.skip()
                elif event is None:
                    gr.Warning(say("broken_number", language))
                else:
                    drawn.append(event)
        finally:
            events.close()  # type: ignore[attr-defined]
            self._stops.pop(str(request.session_hash), None)
        best = best_first(drawn, keep)
        folder = Path(tempfile.mkdtemp(prefix="altdiffusion-demo-"))
        paths, archive = write_all(best, folder)
        captions = []
        for rank, each in enumerate(best, start=1):
            score = [] if each.cosine is None else [f"cosine {each.cosine:.3f}"]
            captions.append(" · ".join([str(rank), *score, f"seed {each.settings.seed}"]))
        status = say("drawn", language, count=len(drawn), kept=len(best))
        pictures = [(str(path), caption) for path, caption in zip(paths, captions, strict=True)]
        yield status, None, pictures, str(archive) if best else None

    def stop(self, request: gr.Request) -> None:
        """Stops the visitor's drawing at its next step; finished pictures stay."""
        event = self._stops.get(str(request.session_hash))
        if event is not None:
            event.set()

    def restore(self, path: str, language: str, request: gr.Request) -> tuple[Any, ...]:
        """The settings of a picture that this page has made."""
        with guarded(self._rate, request, language):
            self._limits.picture(path)
            settings = restored(Path(path))
            guidance = min(20.0, max(1.0, settings.guidance_scale))
            steps = min(self._limits.steps, settings.num_inference_steps)
            return settings.prompt, settings.negative_prompt, steps, guidance, settings.seed
