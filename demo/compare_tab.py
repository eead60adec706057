"""The fourth tab: one idea in all languages of the model, from the same noise."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, Context
from altdiffusion_clip.demo.controls import Controls, start_and_stop
from altdiffusion_clip.demo.drawing_view import DrawingView
from altdiffusion_clip.demo.ideas import ideas_of
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.settings import Settings

_THING, _GROUND = "cat", "blue"


class CompareTab:
    """Components and calls of the tab.

    Args:
        context: of the page.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        labels = context.labels
        self._ideas = ideas = ideas_of(context.studio.model)
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                with gr.Row():
                    thing = labels.label(gr.Dropdown(ideas.things, value=_THING, elem_id="thing"), "thing")
                    ground = labels.label(gr.Dropdown(ideas.grounds, value=_GROUND, elem_id="colour"), "colour")
                start, stop = start_and_stop(context, "compare_start", "compare-stop")
            with gr.Column(elem_classes="show"):
                self.view = DrawingView(context, "compare", "same_noise", columns=3)
            with gr.Column(elem_classes="more"):
                prompts = [
                    gr.Textbox(said, label=name, elem_id=f"idea-{code}", max_lines=2)
                    for (code, name), said in zip(ideas.languages.items(), ideas.say(_THING, _GROUND), strict=True)
                ]
                with labels.label(gr.Accordion(open=False), "settings"):
                    controls = Controls(context, "compare")
        gr.on([thing.input, ground.input], self._say, [thing, ground], prompts, **BESIDE_THE_QUEUE)
        inputs = [
            *prompts, controls.steps, controls.guidance, controls.seed, controls.scheduler, context.accepted,
            context.language,
        ]  # fmt: skip
        self.view.run([start.click], self._call(), inputs, [start], stop, "compare")

    def _call(self) -> Callable[..., Any]:
        """`compare` with one argument per language, which the API uses as names."""

        def call(*given: Any) -> Iterator[tuple[Any, ...]]:
            count = len(self._ideas.languages)
            yield from self.compare(dict(zip(self._ideas.languages, given[:count], strict=True)), *given[count:])

        more = [each for each in inspect.signature(self.compare).parameters.values() if each.name != "prompts"]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        said = [inspect.Parameter(code, kind, annotation=str) for code in self._ideas.languages]
        call.__signature__ = inspect.Signature([*said, *more])  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in [*said, *more]}
        return call

    def compare(
        self,
        prompts: dict[str, str],
        steps: float,
        guidance: float,
        seed: float,
        scheduler: str,
        accepted: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Draws the prompt of each language with the same seed, in order. Empty prompts are left out."""
        context = self._context
        with context.guard.call("compare", language):
            said = {code: prompt for code, prompt in prompts.items() if (prompt or "").strip()}
            if not said:
                raise Refusal("empty_prompt")
            wanted: list[Settings] = []
            for prompt in said.values():
                # A random seed is chosen once for all.
                same = wanted[0].seed if wanted else seed
                wanted.append(context.settings(prompt, "", steps, guidance, same, scheduler, accepted))
            names = [self._ideas.languages[code] for code in said]
            yield from self.view.follow(context.studio.draw(wanted), len(wanted), language, request, captions=names)

    def _say(self, thing: str, ground: str) -> list[str]:
        try:
            return self._ideas.say(thing, ground)
        except KeyError:
            raise gr.Error(f"{thing}, {ground}?", print_exception=False) from None
