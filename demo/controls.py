"""The controls for drawing settings, one group per tab that draws."""

from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, LARGEST, MOST_GUIDANCE, MOST_SEED, RANDOM_SEED, Context
from altdiffusion_clip.demo.uploads import unchecked
from altdiffusion_clip.drawing.settings import usual_guidance_scale, usual_steps
from altdiffusion_clip.schedulers import SCHEDULERS


def button(context: Context, key: str, elem_id: str = "", **more: Any) -> gr.Button:
    """A button whose text changes with the language.

    Args:
        context: of the page.
        key: of the text, and the element's id by default.
        elem_id: of the element.
        **more: passed to Gradio.
    """
    element = gr.Button(min_width=80, elem_id=elem_id or key.replace("_", "-"), **more)
    return context.labels.label(element, key, "value")


def start_and_stop(context: Context, start: str, stop: str) -> tuple[gr.Button, gr.Button]:
    """The start and stop buttons of a tab that draws."""
    with gr.Row():
        return button(context, start, variant="primary"), button(
            context, "stop", stop, variant="stop", interactive=False
        )


class Controls:
    """Steps, guidance, seed, scheduler, and optionally the size.

    Args:
        context: of the page.
        name: prefix of the elements' ids.
        sizes: whether width and height can be chosen.
    """

    def __init__(self, context: Context, name: str, sizes: bool = False) -> None:
        labels, studio = context.labels, context.studio
        with gr.Row():
            self.steps = labels.label(
                unchecked(
                    gr.Slider(1, context.limits.steps, usual_steps(studio.model), step=1, elem_id=f"{name}-steps")
                ),
                "steps",
            )
            self.guidance = labels.label(
                unchecked(
                    gr.Slider(
                        1, MOST_GUIDANCE, usual_guidance_scale(studio.model), step=0.5, elem_id=f"{name}-guidance"
                    )
                ),
                "guidance",
            )
        with gr.Row():
            with gr.Column(min_width=160):
                self.seed = labels.label(
                    unchecked(
                        gr.Number(
                            RANDOM_SEED, precision=0, minimum=RANDOM_SEED, maximum=MOST_SEED, elem_id=f"{name}-seed"
                        )
                    ),
                    "seed",
                )
                dice = labels.label(gr.Button(size="sm", elem_id=f"{name}-dice"), "dice", "value")
                dice.click(lambda: RANDOM_SEED, None, self.seed, **BESIDE_THE_QUEUE)
            self.scheduler = labels.label(
                gr.Dropdown(
                    [(studio.own_scheduler, ""), *((kind.sampler, name) for name, kind in SCHEDULERS.items())],
                    value="",
                    elem_id=f"{name}-scheduler",
                ),
                "scheduler",
            )
        self.width: Any = None
        self.height: Any = None
        if sizes:
            side, least = studio.side, studio.multiple
            with gr.Row():
                self.width, self.height = (
                    labels.label(
                        unchecked(gr.Slider(least, LARGEST * side, side, step=least, elem_id=f"{name}-{length}")),
                        length,
                    )
                    for length in ("width", "height")
                )
