"""The page's first part: drawing, with a preview, ranked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, MOST_GUIDANCE, MOST_SEED, Context
from altdiffusion_clip.demo.controls import Controls, button, start_and_stop
from altdiffusion_clip.demo.drawing_view import DrawingView
from altdiffusion_clip.demo.results import restored
from altdiffusion_clip.demo.studio import variations
from altdiffusion_clip.demo.uploads import quiet

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
        context: of the page.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        labels, limits, language = context.labels, context.limits, context.language
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self.prompt = labels.label(gr.Textbox("", lines=2, elem_id="prompt"), "prompt")
                start, stop = start_and_stop(context, "start", "stop")
                with gr.Row():
                    again, vary, change = (button(context, key, size="sm") for key in ("again", "vary", "to_change"))
                examples = labels.label(
                    gr.Dataset(components=[self.prompt], samples=[[each] for each in EXAMPLES], elem_id="examples"),
                    "examples",
                )
                examples.click(lambda sample: sample[0], examples, self.prompt, queue=False, api_visibility="private")
                with gr.Row():
                    self.count = labels.label(gr.Slider(1, limits.pictures, 4, step=1, elem_id="count"), "count")
                    self.keep = labels.label(
                        gr.Slider(1, limits.pictures, limits.pictures, step=1, elem_id="keep"), "keep"
                    )
                with labels.label(gr.Accordion(open=False, elem_id="settings"), "settings"):
                    self.negative = labels.label(gr.Textbox("", elem_id="negative"), "negative")
                    self.controls = Controls(context, "draw", sizes=True)
                with gr.Column(elem_id="restore"):
                    dropped = labels.label(quiet(gr.UploadButton(file_types=["image"], size="sm")), "restore")
            with gr.Column(scale=3, min_width=300):
                self.view = DrawingView(context, "draw", "pictures")
        view, controls = self.view, self.controls
        self.chosen = gr.State(0)
        self.to_change = change
        inputs = [
            self.prompt, self.negative, self.count, self.keep, controls.steps, controls.guidance, controls.seed,
            controls.width, controls.height, controls.scheduler, context.accepted, language,
        ]  # fmt: skip
        view.gallery.select(self._choose, None, self.chosen, **BESIDE_THE_QUEUE)
        view.rows.change(lambda: 0, None, self.chosen, **BESIDE_THE_QUEUE)
        moved = [
            again.click(self._seed_of, [view.rows, self.chosen, controls.seed], controls.seed, **BESIDE_THE_QUEUE),
            vary.click(self._next_seed, [controls.seed, self.count], controls.seed, **BESIDE_THE_QUEUE),
        ]
        triggers = [start.click, self.prompt.submit, *(each.then for each in moved)]
        view.run(triggers, self.draw, inputs, [start, again, vary], stop, "draw")
        dropped.upload(
            self.restore,
            [dropped, language],
            [
                self.prompt, self.negative, controls.steps, controls.guidance, controls.seed,
                controls.width, controls.height, controls.scheduler,
            ],
            api_name="restore",
            show_progress="hidden",
        )  # fmt: skip

    def draw(
        self,
        prompt: str,
        negative: str,
        count: float,
        keep: float,
        steps: float,
        guidance: float,
        seed: float,
        width: float,
        height: float,
        scheduler: str,
        accepted: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Draws pictures and ranks them, best first, with a preview while it does."""
        context = self._context
        with context.guard.call("draw", language):
            context.limits.within(count=(count, 1, context.limits.pictures), keep=(keep, 1, context.limits.pictures))
            first = context.settings(
                prompt, negative, steps, guidance, seed, scheduler, accepted, width=width, height=height
            )
            events = context.studio.draw(variations(first, int(count)))
            yield from self.view.follow(events, int(count), language, request, keep=int(keep))

    def restore(self, path: str, language: str) -> tuple[Any, ...]:
        """The settings of a picture that this page, or `altdiffusion generate`, has made."""
        context = self._context
        with context.guard.call("restore", language):
            context.limits.picture(path)
            settings = restored(Path(path))
            studio, limits = context.studio, context.limits
            return (
                settings.prompt,
                settings.negative_prompt,
                min(limits.steps, max(1, settings.num_inference_steps)),
                min(MOST_GUIDANCE, max(1.0, settings.guidance_scale)),
                min(MOST_SEED, max(0, settings.seed)),
                settings.width or studio.side,
                settings.height or studio.side,
                settings.scheduler,
            )

    def _choose(self, event: gr.SelectData) -> int:
        return int(event.index)

    def _seed_of(self, rows: list[dict[str, Any]], chosen: int, seed: float) -> float:
        if not rows:
            return seed
        return rows[min(chosen, len(rows) - 1)]["seed"]

    def _next_seed(self, seed: float | None, count: float) -> float:
        return int(seed or 0) + int(count)
