"""Assembles the page."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from altdiffusion_clip.checkpoints.model_ids import is_packaged, looks_local
from altdiffusion_clip.demo.change_tab import ChangeTab
from altdiffusion_clip.demo.compare_tab import CompareTab
from altdiffusion_clip.demo.context import BESIDE_THE_QUEUE, Context
from altdiffusion_clip.demo.draw_tab import DrawTab
from altdiffusion_clip.demo.guard import Guard
from altdiffusion_clip.demo.labels import Labels
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.rank_tab import RankTab
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.demo.texts import LANGUAGES, TEXTS, say
from altdiffusion_clip.drawing.knowledge import things_of

BROWSERS_LANGUAGE = "() => navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'"
TITLES = json.dumps(dict(zip(LANGUAGES, TEXTS["title"], strict=True)), ensure_ascii=False)
TELL_THE_BROWSER = (
    f"(code) => {{ document.documentElement.lang = code; document.title = {TITLES}[code]; return [code]; }}"
)
HUB = "https://huggingface.co/"


def about(model: str, language: str) -> str:
    """Text about what a model draws, if known, and what the scores mean."""
    said = [say("about_text", language)]
    if is_packaged(model):
        names = ", ".join(f"{each['emoji']} {each[language]}" for each in things_of(model))
        said.insert(0, say("things", language, things=names))
    return "\n\n".join(said)


def _is_on_the_hub(model: str) -> bool:
    return not looks_local(model) and not Path(model).exists()


def build(studio: Studio, limits: Limits, metrics: Metrics, guard: Guard) -> gr.Blocks:
    """The page.

    Args:
        studio: draws and ranks.
        limits: of a call.
        metrics: counters.
        guard: wraps every call.
    """
    labels = Labels()
    licence = studio.licence
    bound = licence is not None and licence.restricts_use
    with gr.Blocks(title=TEXTS["title"][0], analytics_enabled=False, delete_cache=(600, 3600)) as page:
        remembered = gr.BrowserState(False, storage_key=f"altdiffusion-licence-{studio.model}")
        with gr.Row(elem_id="head"):
            with gr.Column(scale=4, min_width=260):
                title = gr.Markdown(elem_id="title")
                labels.label(gr.Markdown(elem_id="intro"), "intro", "value")
            language = labels.label(
                gr.Radio(
                    [(name, code) for code, name in LANGUAGES.items()], value="en", elem_id="language", min_width=200
                ),
                "language",
            )
        with labels.label(gr.Accordion(visible=bound, elem_id="terms"), "terms") as panel:
            terms = gr.Markdown()
            accepted = labels.label(gr.Checkbox(False, elem_id="accept"), "accept")
        context = Context(studio, limits, metrics, language, accepted, labels, guard)
        with gr.Tabs(elem_id="tabs") as tabs:
            with labels.label(gr.Tab(id="draw", elem_id="draw-tab"), "draw"):
                draw = DrawTab(context)
            with labels.label(gr.Tab(id="change", elem_id="change-tab"), "change"):
                change = ChangeTab(context)
            if studio.bench is not None:
                with labels.label(gr.Tab(id="rank", elem_id="rank-tab"), "rank"):
                    RankTab(context, studio.bench)
            with labels.label(gr.Tab(id="compare", elem_id="compare-tab"), "compare"):
                CompareTab(context)

        with labels.label(gr.Accordion(open=False, elem_id="about"), "about"):
            facts = gr.Markdown()

        def speak(code: str) -> list[Any]:
            name = f"`{studio.model}`"
            if _is_on_the_hub(studio.model):
                name = f"[{studio.model}]({HUB}{studio.model})"
            elif studio.card:
                name = f"{name} ([{say('card', code)}](card))"
            unknown = say("licence_unknown", code)
            heading = (
                f"# {say('title', code)}\n{say('model', code)}: {name} · "
                f"{say('licence', code)}: {licence.name if licence else unknown}"
            )
            said = say("terms_text", code, name=licence.name, url=licence.url) if bound and licence else ""
            return [heading, said, about(studio.model, code), *labels.updates(code)]

        def hand_over(gallery: list[tuple[str, str]] | None, chosen: int, prompt: str) -> list[Any]:
            if not gallery:
                return [gr.skip(), gr.skip()]
            return [gallery[min(chosen, len(gallery) - 1)][0], prompt]

        changed = [title, terms, facts, *labels.components]
        language.change(speak, language, changed, js=TELL_THE_BROWSER, **BESIDE_THE_QUEUE)
        page.load(
            lambda code: code, language, language, js=BROWSERS_LANGUAGE, queue=False, api_visibility="private"
        ).then(speak, language, changed, js=TELL_THE_BROWSER, **BESIDE_THE_QUEUE)
        page.load(draw.remind, draw.history, [draw.past, *draw.settings], **BESIDE_THE_QUEUE)
        if bound:
            page.load(
                lambda known: (known, gr.Accordion(open=not known)), remembered, [accepted, panel], **BESIDE_THE_QUEUE
            )
            accepted.input(
                lambda now: (now, gr.Accordion(open=not now)), accepted, [remembered, panel], **BESIDE_THE_QUEUE
            )
        draw.to_change.click(lambda: gr.Tabs(selected="change"), None, tabs, **BESIDE_THE_QUEUE).then(
            hand_over,
            [draw.view.gallery, draw.view.chosen, draw.prompt],
            [change.picture, change.prompt],
            **BESIDE_THE_QUEUE,
        )
    return page
