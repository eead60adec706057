"""The page and its server."""

import asyncio
import contextlib
import logging
import os
from typing import Any

import fastapi
import gradio as gr
import uvicorn

from altdiffusion_clip.demo.draw_tab import DrawTab
from altdiffusion_clip.demo.labels import Labels
from altdiffusion_clip.demo.limits import Limits, RateLimit
from altdiffusion_clip.demo.rank_tab import RankTab
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.demo.texts import LANGUAGES, TEXTS, say

GRACE = 10
"""Seconds that a picture in hand has to be finished when the server is asked to stop."""

CSS = """
textarea, input[type=text] { unicode-bidi: plaintext; text-align: start; }
.gradio-container { max-width: 1280px !important; margin: 0 auto; }
#head { align-items: center; }
#status, #rank-status { min-height: 1.5em; }
#gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)) !important; }
#gallery .grid-wrap { min-height: 0 !important; height: auto !important; }
#gallery .caption-label { inset-inline: 0; bottom: 0; max-width: 100%; border-radius: 0; text-align: center;
  font-size: .8rem; white-space: normal; }
.table { overflow-x: auto; }
.table table { border-collapse: collapse; width: 100%; }
.table th, .table td { padding: .35em .7em; text-align: start; }
.table td { font-variant-numeric: tabular-nums; text-align: end; }
"""

BROWSERS_LANGUAGE = "() => navigator.language.toLowerCase().startsWith('zh') ? 'zh' : 'en'"


def build(studio: Studio, limits: Limits | None = None) -> gr.Blocks:
    """The page.

    Args:
        studio: that draws and ranks.
        limits: of a call; the usual ones if not given.
    """
    limits = limits or Limits()
    rate, labels = RateLimit(limits), Labels()
    with gr.Blocks(title=TEXTS["title"][0], analytics_enabled=False, delete_cache=(600, 3600)) as page:
        with gr.Row(elem_id="head"):
            with gr.Column(scale=4):
                title = gr.Markdown(elem_id="title")
                labels.label(gr.Markdown(), "intro", "value")
            language = labels.label(
                gr.Radio(
                    [(name, code) for code, name in LANGUAGES.items()], value="en", elem_id="language", min_width=200
                ),
                "language",
            )
        with labels.label(gr.Tab(id="draw", elem_id="draw-tab"), "draw"):
            DrawTab(studio, limits, rate, labels, language)
        if studio.scorer is not None:
            with labels.label(gr.Tab(id="rank", elem_id="rank-tab"), "rank"):
                RankTab(studio, limits, rate, labels, language)

        def speak(code: str) -> list[Any]:
            heading = f"# {say('title', code)}\n{say('model', code)}: `{studio.model}`"
            return [gr.update(value=heading), *labels.updates(code)]

        changed = [title, *labels.components]
        language.change(speak, language, changed, queue=False, show_progress="hidden", api_visibility="private")
        page.load(
            lambda code: code, language, language, js=BROWSERS_LANGUAGE, queue=False, api_visibility="private"
        ).then(speak, language, changed, queue=False, show_progress="hidden", api_visibility="private")
    return page


def application(studio: Studio, limits: Limits | None = None, auth: tuple[str, str] | None = None) -> fastapi.FastAPI:
    """The page as an application, with `/health` beside it.

    Args:
        studio: that draws and ranks.
        limits: of a call; the usual ones if not given.
        auth: a name and a password that visitors must give.
    """
    limits = limits or Limits()
    page = build(studio, limits)
    page.queue(max_size=limits.queue)
    app = fastapi.FastAPI(title="altdiffusion-clip", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": studio.model}

    system = ["system-ui", "sans-serif"]
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=auth,
        max_file_size=limits.upload_bytes,
        footer_links=["api"],
        theme=gr.themes.Soft(font=system, font_mono=["ui-monospace", "monospace"]),
        css=CSS,
        ssr_mode=False,
    )


def serve(app: fastapi.FastAPI, host: str, port: int) -> None:
    """Serves until asked to stop (Ctrl-C, SIGTERM).

    What is being drawn is finished first, if it takes no longer than `GRACE` seconds.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    logging.getLogger("uvicorn.access").disabled = True
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE)
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it has stopped
        asyncio.run(uvicorn.Server(config).serve())
