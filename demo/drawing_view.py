"""The view that shows pictures while and after they are drawn, one per tab that draws."""

import html
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, Context
from altdiffusion_clip.demo.results import best_first, rows_of, write_archive, write_pictures
from altdiffusion_clip.demo.studio import Drawn, Lost, Progress
from altdiffusion_clip.demo.texts import announced, say
from altdiffusion_clip.drawing.gallery import shown_score
from altdiffusion_clip.drawing.knowledge import Unknown, unknown_of

Events = Iterator[Progress | Drawn | Lost]
SECONDS_BETWEEN = 0.2
"""Least time between progress updates. A fast model takes more steps than the page should be redrawn for."""


class DrawingView:
    """Status, preview, gallery, and a zip of all pictures.

    Args:
        context: of the page.
        name: prefix of the elements' ids.
        caption: key of the text above the gallery.
        columns: of the gallery.

    `chosen` is the place of the picture that was opened last, the first by default. Its settings are below the gallery.
    """

    def __init__(self, context: Context, name: str, caption: str, columns: int = 4) -> None:
        self._context, labels = context, context.labels
        self._model = context.studio.model
        self.status = gr.HTML(elem_id=f"{name}-status", elem_classes="status")
        self.preview = labels.label(
            gr.Image(
                interactive=False,
                height=180,
                elem_id=f"{name}-preview",
                elem_classes="preview",
                visible=False,
                buttons=[],
            ),
            "preview",
        )
        labels.label(gr.Markdown(elem_id=f"{name}-caption"), caption, "value")
        self.gallery = gr.Gallery(
            columns=columns,
            height="auto",
            object_fit="contain",
            buttons=["download", "fullscreen"],  # Gradio's share button would load its site
            format="png",
            interactive=False,
            show_label=False,
            elem_id=f"{name}-gallery",
            elem_classes="gallery",
        )
        parameters = gr.HTML(elem_id=f"{name}-parameters", elem_classes="parameters")
        self.archive = labels.label(gr.File(interactive=False, visible=False, elem_id=f"{name}-archive"), "download")
        self.rows = gr.JSON([], visible="hidden", label="results", elem_id=f"{name}-rows")
        self.chosen = gr.State(0)
        chosen = [self.chosen, parameters]
        self.gallery.select(self._choose, self.rows, chosen, **BESIDE_THE_QUEUE)
        self.rows.change(lambda rows: (0, _parameters_of(rows, 0)), self.rows, chosen, **BESIDE_THE_QUEUE)

    @property
    def outputs(self) -> list[Any]:
        """The components that `follow` updates, in order."""
        return [self.status, self.preview, self.gallery, self.archive, self.rows]

    def run(
        self,
        triggers: Sequence[Callable[..., Any]],
        draw: Callable[..., Any],
        inputs: Sequence[Any],
        buttons: Sequence[Any],
        stop: gr.Button,
        api_name: str | None,
        on_pictures: Sequence[Any] = (),
    ) -> list[Any]:
        """Connects events to a call that draws into this view.

        Args:
            triggers: events such as `button.click`; the first one is for programs too.
            draw: the call. Its last argument is the visitor's request.
            inputs: of the call.
            buttons: disabled while it draws.
            stop: the button that is enabled only while it draws.
            api_name: of the call for programs; None for none.
            on_pictures: buttons that are enabled only if there are pictures.

        Returns:
            The events of a successful drawing.
        """
        stops = self._context.stops

        def busy(language: str, request: gr.Request) -> list[Any]:
            stops.expect(str(request.session_hash))
            return [
                announced(say("waiting", language)),
                None,
                [],
                gr.update(visible=False),
                *(gr.update(interactive=False) for _ in [*buttons, *on_pictures]),
                gr.update(interactive=True),
            ]

        def idle(rows: list[dict[str, Any]] | None, request: gr.Request) -> list[Any]:
            stops.forget(str(request.session_hash))
            free = [gr.update(interactive=True) for _ in buttons]
            free += [gr.update(interactive=bool(rows)) for _ in on_pictures]
            return [gr.update(visible=False), gr.update(visible=bool(rows)), *free, gr.update(interactive=False)]

        def failed(request: gr.Request) -> list[Any]:
            return ["", [], *idle([], request)]

        changed = [*buttons, *on_pictures, stop]
        succeeded = []
        for place, trigger in enumerate(triggers):
            public = api_name if place == 0 else None
            begun = [self.status, self.gallery, self.rows, self.archive, *changed]
            drawing = trigger(busy, self._context.language, begun, **BESIDE_THE_QUEUE).then(
                draw,
                list(inputs),
                self.outputs,
                api_name=public,
                api_visibility="public" if public else "private",
                concurrency_limit=1,
                concurrency_id="model",
                show_progress="minimal",
                show_progress_on=[self.status],
            )
            done = drawing.success(idle, self.rows, [self.preview, self.archive, *changed], **BESIDE_THE_QUEUE)
            drawing.failure(
                failed, None, [self.status, self.rows, self.preview, self.archive, *changed], **BESIDE_THE_QUEUE
            )
            succeeded.append(done)
        stop.click(self._stop, None, None, **BESIDE_THE_QUEUE)
        return succeeded

    def _choose(self, rows: list[dict[str, Any]] | None, event: gr.SelectData) -> tuple[int, str]:
        return int(event.index), _parameters_of(rows, int(event.index))

    def _stop(self, request: gr.Request) -> None:
        self._context.stops.stop(str(request.session_hash))

    def follow(
        self,
        events: Events,
        count: int,
        language: str,
        request: gr.Request,
        keep: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Shows a drawing in progress, and then its results.

        Args:
            events: from the studio.
            count: number of pictures.
            language: of the page.
            request: of the visitor, who may stop it.
            keep: how many of the best pictures to keep; by default all, in the order of drawing.
            captions: of each picture, before its score; by default its rank. Only without `keep`.

        Yields:
            Values for `outputs`.
        """
        stopped = self._context.stops.of(str(request.session_hash))
        drawn: list[Drawn] = []
        shown: list[tuple[str, str]] = []
        lost = []
        number, shown_at, began = 0, 0.0, time.monotonic()
        with tempfile.TemporaryDirectory(prefix="altdiffusion-demo-") as folder:  # Gradio copies what it shows
            try:
                for event in events:
                    if stopped.is_set():
                        break
                    if isinstance(event, Progress):
                        number = event.number - 1
                        now = time.monotonic()
                        if event.preview is None and now - shown_at < SECONDS_BETWEEN:
                            continue
                        shown_at = now
                        preview = gr.skip() if event.preview is None else gr.update(value=event.preview, visible=True)
                        yield (_progress(event, count, language), preview, *(gr.skip(),) * 3)
                    elif isinstance(event, Lost):
                        lost.append(say(event.reason, language, seed=event.settings.seed))
                    else:
                        self._context.metrics.pictures.inc()
                        drawn.append(event)
                        path = Path(folder) / f"drawn-{len(drawn)}.png"
                        event.save(path)
                        name = captions[number] if captions else str(len(drawn))
                        shown.append((str(path), _caption(name, event, language)))
                        yield (gr.skip(), gr.skip(), list(shown), gr.skip(), gr.skip())
            finally:
                events.close()  # type: ignore[attr-defined]
                seconds = time.monotonic() - began
                self._context.stops.forget(str(request.session_hash))
            best = drawn if keep is None else best_first(drawn, keep)
            paths = write_pictures(best, Path(folder))
            rows = rows_of(best, paths)
            archive = str(write_archive(paths, rows, Path(folder))) if best else None
            if captions:
                pictures = [(str(path), said) for path, (_, said) in zip(paths, shown, strict=True)]
            else:
                pictures = [
                    (str(path), _caption(str(rank), each, language))
                    for rank, (each, path) in enumerate(zip(best, paths, strict=True), start=1)
                ]
            said = [say("drawn", language, count=len(drawn), seconds=seconds, kept=len(best)), *lost]
            prompts = dict.fromkeys(each.settings.prompt for each in best)
            said += [_said_of(unknown, language) for prompt in prompts if (unknown := unknown_of(self._model, prompt))]
            if any(each.settings.prompt_windows > 1 for each in best):
                said.append(say("long_score", language))
            yield announced(*said), None, pictures, archive, rows


def _parameters_of(rows: list[dict[str, Any]] | None, place: int) -> str:
    """The settings of a picture, as the WebUIs show them below it. Nothing while pictures are being drawn."""
    return html.escape(rows[place]["parameters"]).replace("\n", "<br>") if rows and place < len(rows) else ""


def _caption(name: str, drawn: Drawn, language: str) -> str:
    score = [] if drawn.score is None else [shown_score({drawn.measure: drawn.score, "judges": drawn.judges})]
    return " · ".join([name, *score, say("seed_of", language, seed=drawn.settings.seed)])


def _said_of(unknown: Unknown, language: str) -> str:
    if not unknown.known:
        return say("not_known", language)
    return say("partly_known", language, known=", ".join(unknown.known), words=", ".join(unknown.words))


def _progress(event: Progress, count: int, language: str) -> str:
    said = say("drawing", language, number=event.number, count=count, step=event.step, steps=event.steps)
    done, whole = (event.number - 1) * event.steps + event.step, count * event.steps
    bar = f'<progress max="{whole}" value="{done}" aria-label="{html.escape(said)}"></progress>'
    return f'<div role="status">{html.escape(said)}</div>{bar}'
