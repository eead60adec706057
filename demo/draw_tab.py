"""The first tab: draws with previews, and ranks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, MOST_GUIDANCE, MOST_SEED, RANDOM_SEED, Context
from altdiffusion_clip.demo.controls import Controls, button, start_and_stop
from altdiffusion_clip.demo.drawing_view import DrawingView
from altdiffusion_clip.demo.history import labels_of, remembered
from altdiffusion_clip.demo.results import TEXT, restored
from altdiffusion_clip.demo.studio import variations
from altdiffusion_clip.demo.texts import announced, say
from altdiffusion_clip.demo.uploads import quiet, unchecked
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import find_concept, find_ground

EXAMPLES = tuple(
    captions(find_concept(thing), find_ground(ground), language)[0]
    for thing, ground, language in (
        ("penguin", "snow", "en"),
        ("panda", "meadow", "zh"),
        ("rocket", "night sky", "ja"),
        ("fox", "desert", "ar"),
        ("strawberry", "pink", "ko"),
        ("sailboat", "sunset", "fr"),
        ("chick", "green", "de"),
        ("whale", "sea", "ru"),
        ("unicorn", "turquoise", "hi"),
    )
)
"""One in each of some languages, of things that emoji-m18 draws well."""

COPY = "(rows, chosen) => { navigator.clipboard.writeText(rows[Math.min(chosen, rows.length - 1)].parameters); }"


class DrawTab:
    """Components and calls of the tab.

    Args:
        context: of the page.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        labels, limits, language = context.labels, context.limits, context.language
        with gr.Column(elem_classes="desk"):
            with gr.Column(elem_classes="ask"):
                self.prompt = labels.label(gr.Textbox("", lines=2, elem_id="prompt"), "prompt")
                labels.label(self.prompt, "prompt_hint", "placeholder")
                start, stop = start_and_stop(context, "start", "stop")
                with gr.Row():
                    again, vary, change, copy = (
                        button(context, key, size="sm", interactive=False)
                        for key in ("again", "vary", "to_change", "copy")
                    )
            with gr.Column(elem_classes="show"):
                self.view = DrawingView(context, "draw", "pictures")
            with gr.Column(elem_classes="more"):
                examples = labels.label(
                    gr.Dataset(components=[self.prompt], samples=[[each] for each in EXAMPLES], elem_id="examples"),
                    "examples",
                )
                examples.click(lambda sample: sample[0], examples, self.prompt, queue=False, api_visibility="private")
                with gr.Row():
                    self.count = labels.label(
                        unchecked(gr.Slider(1, limits.pictures, 4, step=1, elem_id="count")),
                        "count",
                    )
                    self.keep = labels.label(
                        unchecked(gr.Slider(1, limits.pictures, limits.pictures, step=1, elem_id="keep")),
                        "keep",
                    )
                with labels.label(gr.Accordion(open=False, elem_id="settings"), "settings"):
                    self.negative = labels.label(gr.Textbox("", elem_id="negative"), "negative")
                    labels.label(self.negative, "negative_hint", "placeholder")
                    self.controls = Controls(context, "draw", sizes=True)
                with gr.Column(elem_id="restore"):
                    dropped = labels.label(quiet(gr.UploadButton(file_types=["image", ".txt"], size="sm")), "restore")
                with labels.label(gr.Accordion(open=False, elem_id="history"), "history"):
                    past = gr.Dataset(
                        components=[gr.Textbox(visible=False)],
                        samples=[],
                        type="index",
                        samples_per_page=30,
                        show_label=False,
                        elem_id="past",
                    )
        view, controls = self.view, self.controls
        self.to_change = change
        settings = [
            self.prompt, self.negative, controls.steps, controls.guidance, controls.seed, controls.width,
            controls.height, controls.scheduler,
        ]  # fmt: skip
        inputs = [
            self.prompt, self.negative, self.count, self.keep, controls.steps, controls.guidance, controls.seed,
            controls.width, controls.height, controls.scheduler, context.accepted, language,
        ]  # fmt: skip
        copy.click(None, [view.rows, view.chosen], None, js=COPY, queue=False, api_visibility="private").then(
            lambda code: announced(say("copied", code)), language, view.status, **BESIDE_THE_QUEUE
        )
        moved = [
            again.click(self._seed_of, [view.rows, view.chosen, controls.seed], controls.seed, **BESIDE_THE_QUEUE),
            vary.click(self._next_seed, [view.rows, controls.seed], controls.seed, **BESIDE_THE_QUEUE),
        ]
        triggers: list[Callable[..., Any]] = [start.click, *(each.then for each in moved)]
        done = view.run(triggers, self.draw, inputs, [start], stop, "draw", [again, vary, change, copy])
        # Only in the visitor's browser. Nothing is kept on the server.
        self.history = gr.BrowserState([], storage_key="altdiffusion-history")
        for each in done:
            each.then(self._remember, [self.history, view.rows], [self.history, past], **BESIDE_THE_QUEUE)
        past.click(self._recall, [past, self.history], settings, **BESIDE_THE_QUEUE)
        self.past, self.settings = past, settings
        dropped.upload(self.restore, [dropped, language], settings, api_name="restore", show_progress="hidden")

    def remind(self, history: Any) -> list[Any]:
        """The browser's history and the last settings, when the page is opened."""
        known = remembered(history, None)
        values = self._values(known[0]) if known else [gr.skip()] * len(self.settings)
        return [gr.Dataset(samples=labels_of(known)), *values]

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
        """Draws pictures with previews and ranks them, best first. A seed of -1 is random."""
        context = self._context
        with context.guard.call("draw", language):
            context.limits.within(count=(count, 1, context.limits.pictures), keep=(keep, 1, context.limits.pictures))
            first = context.settings(
                prompt, negative, steps, guidance, seed, scheduler, accepted, width=width, height=height
            )
            events = context.studio.draw(variations(first, int(count)))
            yield from self.view.follow(events, int(count), language, request, keep=int(keep))

    def restore(self, path: str, language: str) -> list[Any]:
        """The settings of a picture that this program or a WebUI drew, or of a text that it copied or saved."""
        context = self._context
        with context.guard.call("restore", language):
            if Path(path).suffix != TEXT:
                context.limits.picture(path)
            return self._values(vars(restored(Path(path), context.studio.model)))

    def _values(self, settings: dict[str, Any]) -> list[Any]:
        """Settings as values for the page's inputs, within their bounds."""
        studio, limits = self._context.studio, self._context.limits
        return [
            settings["prompt"],
            settings.get("negative_prompt") or "",
            min(limits.steps, max(1, settings.get("num_inference_steps") or 1)),
            min(MOST_GUIDANCE, max(1.0, settings.get("guidance_scale") or 1.0)),
            min(MOST_SEED, max(RANDOM_SEED, settings["seed"])),
            settings.get("width") or studio.side,
            settings.get("height") or studio.side,
            settings.get("scheduler") or "",
        ]

    def _remember(self, history: Any, rows: list[dict[str, Any]] | None) -> tuple[list[dict[str, Any]], gr.Dataset]:
        now = remembered(history, rows)
        return now, gr.Dataset(samples=labels_of(now))

    def _recall(self, place: int, history: Any) -> list[Any]:
        return self._values(remembered(history, None)[place])

    def _seed_of(self, rows: list[dict[str, Any]], chosen: int, seed: float) -> float:
        if not rows:
            return seed
        return rows[min(chosen, len(rows) - 1)]["seed"]

    def _next_seed(self, rows: list[dict[str, Any]], seed: float | None) -> float:
        """The seed after those of the current pictures."""
        return max((row["seed"] for row in rows or []), default=int(seed or 0) - 1) + 1
