"""The page's fourth part: one idea in nine languages, from the same noise."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, Context
from altdiffusion_clip.demo.controls import Controls, start_and_stop
from altdiffusion_clip.demo.drawing_view import DrawingView
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import colours, concepts, find_colour, find_concept

NAMES = {
    "en": "English",
    "zh": "中文",
    "es": "Español",
    "fr": "Français",
    "ru": "Русский",
    "ja": "日本語",
    "ko": "한국어",
    "ar": "العربية",
    "it": "Italiano",
}
"""AltDiffusion-m9's languages, as they call themselves."""

_THING, _COLOUR = "cat", "blue"


class CompareTab:
    """Components and calls of the part.

    Args:
        context: of the page.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        labels = context.labels
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                with gr.Row():
                    things = [
                        (f"{each.emoji} {each.names['en']} · {each.names['zh']}", each.names["en"])
                        for each in concepts()
                    ]
                    thing = labels.label(gr.Dropdown(things, value=_THING, elem_id="thing"), "thing")
                    colour = labels.label(
                        gr.Dropdown([each.name for each in colours()], value=_COLOUR, elem_id="colour"), "colour"
                    )
                start, stop = start_and_stop(context, "compare_start", "compare-stop")
            with gr.Column(elem_classes="show"):
                self.view = DrawingView(context, "compare", "same_noise", columns=3)
            with gr.Column(elem_classes="more"):
                ideas = [
                    gr.Textbox(value, label=NAMES[code], elem_id=f"idea-{code}", max_lines=2)
                    for code, value in zip(NAMES, _said(_THING, _COLOUR), strict=True)
                ]
                with labels.label(gr.Accordion(open=False), "settings"):
                    controls = Controls(context, "compare")
        gr.on(
            [thing.input, colour.input],
            _said,
            [thing, colour],
            ideas,
            **BESIDE_THE_QUEUE,
        )
        inputs = [
            *ideas, controls.steps, controls.guidance, controls.seed, controls.scheduler, context.accepted,
            context.language,
        ]  # fmt: skip
        self.view.run([start.click], self.compare, inputs, [start], stop, "compare")

    def compare(
        self,
        en: str,
        zh: str,
        es: str,
        fr: str,
        ru: str,
        ja: str,
        ko: str,
        ar: str,
        it: str,
        steps: float,
        guidance: float,
        seed: float,
        scheduler: str,
        accepted: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Draws what is said in each language with one seed, in the order of the languages. Empty ones are left out."""
        context = self._context
        with context.guard.call("compare", language):
            said = dict(zip(NAMES, (en, zh, es, fr, ru, ja, ko, ar, it), strict=True))
            said = {code: prompt for code, prompt in said.items() if (prompt or "").strip()}
            if not said:
                raise Refusal("empty_prompt")
            wanted: list[Settings] = []
            for prompt in said.values():
                # A random seed is drawn once, and is that of all.
                same = wanted[0].seed if wanted else seed
                wanted.append(context.settings(prompt, "", steps, guidance, same, scheduler, accepted))
            names = [NAMES[code] for code in said]
            yield from self.view.follow(context.studio.draw(wanted), len(wanted), language, request, captions=names)


def _said(thing: str, colour: str) -> list[str]:
    """An idea in each language."""
    try:
        concept, background = find_concept(thing), find_colour(colour)
    except KeyError:
        raise gr.Error(f"{thing}, {colour}?", print_exception=False) from None
    return [captions(concept, background, code)[0] for code in NAMES]
