"""The second tab: changes a whole picture, or the painted part of it."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from altdiffusion_clip.demo.context import Context
from altdiffusion_clip.demo.controls import Controls, start_and_stop
from altdiffusion_clip.demo.drawing_view import DrawingView
from altdiffusion_clip.demo.files import text_of
from altdiffusion_clip.demo.source import fitted, paint_of
from altdiffusion_clip.demo.studio import variations
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.demo.uploads import looked_at, unchecked


class ChangeTab:
    """Components and calls of the tab.

    Args:
        context: of the page.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        labels, limits, language = context.labels, context.limits, context.language
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                self.prompt = labels.label(gr.Textbox("", lines=2, elem_id="change-prompt"), "change_prompt")
                labels.label(self.prompt, "prompt_hint", "placeholder")
                start, stop = start_and_stop(context, "change_start", "change-stop")
                self.picture = labels.label(
                    looked_at(
                        gr.Image(
                            type="filepath",
                            image_mode=None,
                            sources=["upload", "clipboard"],
                            height=160,
                            buttons=[],
                            elem_id="change-picture",
                        ),
                        limits,
                    ),
                    "change_picture",
                )
                painted = gr.HTML(
                    {},
                    html_template=text_of("painter.html"),
                    js_on_load=text_of("painter.js"),
                    apply_default_css=False,
                    elem_id="painter",
                )
                self.picture.change(
                    None,
                    self.picture,
                    painted,
                    js="(picture) => ({picture: picture?.url ?? '', mask: ''})",
                    queue=False,
                    api_visibility="private",
                )
            with gr.Column(elem_classes="show"):
                self.view = DrawingView(context, "change", "pictures")
            with gr.Column(elem_classes="more"):
                labels.label(gr.Markdown(elem_id="change-help"), "change_help", "value")
                with gr.Row():
                    strength = labels.label(
                        unchecked(gr.Slider(0.05, 1, 0.7, step=0.05, elem_id="change-strength")),
                        "strength",
                    )
                    count = labels.label(
                        unchecked(gr.Slider(1, limits.pictures, 4, step=1, elem_id="change-count")),
                        "count",
                    )
                with labels.label(gr.Accordion(open=False), "settings"):
                    negative = labels.label(gr.Textbox("", elem_id="change-negative"), "negative")
                    labels.label(negative, "negative_hint", "placeholder")
                    controls = Controls(context, "change")
        inputs = [
            self.picture, painted, self.prompt, negative, strength, count, controls.steps, controls.guidance,
            controls.seed, controls.scheduler, context.accepted, language,
        ]  # fmt: skip
        self.view.run([start.click], self.change, inputs, [start], stop, "change")

    def change(
        self,
        picture: Image.Image | None,
        painted: dict[str, Any] | None,
        prompt: str,
        negative: str,
        strength: float,
        count: float,
        steps: float,
        guidance: float,
        seed: float,
        scheduler: str,
        accepted: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Redraws a picture, or the painted part of it, from a prompt, and ranks the results."""
        context = self._context
        with context.guard.call("change", language):
            if picture is None:
                raise Refusal("no_picture_given")
            context.limits.within(count=(count, 1, context.limits.pictures), strength=(strength, 0.01, 1))
            first = context.settings(
                prompt, negative, steps, guidance, seed, scheduler, accepted, strength=float(strength)
            )
            if int(steps * strength) < 1:
                raise Refusal("too_weak")
            studio = context.studio
            paint = paint_of(painted.get("mask") if isinstance(painted, dict) else None)
            source = fitted(picture, paint, strength, studio.side, studio.multiple)
            events = studio.draw(variations(first, int(count)), source)
            yield from self.view.follow(events, int(count), language, request, keep=int(count))
