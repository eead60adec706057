"""The server of the page."""

import asyncio
import contextlib
import logging
import os
import warnings

import fastapi
import gradio as gr
import uvicorn
from fastapi.responses import PlainTextResponse
from PIL import Image

from altdiffusion_clip.demo.app import build
from altdiffusion_clip.demo.files import text_of
from altdiffusion_clip.demo.gatekeeper import Gatekeeper
from altdiffusion_clip.demo.guard import Guard
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.studio import Studio

GRACE = 6.0
"""Seconds to finish the current picture when the server is asked to stop."""

LINGER = 2.0
"""Further seconds to deliver it to the visitor's browser."""


class Service:
    """The page as an application, with `/health` and `/metrics`.

    Args:
        studio: draws and ranks.
        limits: of a call; the defaults if not given.
        auth: a name and password that visitors must enter.

    Attributes:
        app: to serve.
    """

    def __init__(self, studio: Studio, limits: Limits | None = None, auth: tuple[str, str] | None = None) -> None:
        limits = limits or Limits()
        self._studio = studio
        self.metrics = Metrics()
        self._guard = Guard(self.metrics)
        page = build(studio, limits, self.metrics, self._guard)
        page.queue(max_size=limits.queue, api_open=False)  # nobody bypasses the queue
        self.metrics.watch_queue(lambda: len(page._queue))
        app = fastapi.FastAPI(title="altdiffusion-clip", docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/health")
        def health() -> dict[str, str]:
            return {"status": "ok", "model": studio.model}

        @app.get("/card", response_class=PlainTextResponse)
        def card() -> str:
            return studio.card

        @app.get("/metrics", response_class=PlainTextResponse)
        def metrics() -> str:
            return self.metrics.text()

        app.add_middleware(Gatekeeper, limits=limits, metrics=self.metrics)
        # Anything above twice this is an error wherever it is decoded, which keeps decompression bombs out.
        Image.MAX_IMAGE_PIXELS = limits.upload_pixels // 2
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        self.app = gr.mount_gradio_app(
            app,
            page,
            path="/",
            auth=auth,
            max_file_size=limits.upload_bytes,
            footer_links=["api"],
            theme=_theme(),
            css=text_of("page.css"),
            js=text_of("page.js"),
            ssr_mode=False,
            run_history=False,  # people's drawings are private
        )

    def finish(self) -> None:
        """Lets the current picture finish, and starts no other."""
        self._studio.close()
        self._guard.close(GRACE)


def _theme() -> gr.themes.Base:
    """Gradio's soft theme with system fonts, and darker text where the contrast would be below WCAG's 4.5:1."""
    return gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_title_text_color="*primary_700",
        block_label_text_color="*primary_700",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_secondary_background_fill_hover_dark="*primary_700",
        checkbox_label_background_fill_selected="*primary_600",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


class _Server(uvicorn.Server):
    """Stops once the current picture has been finished and delivered."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list | None = None) -> None:  # type: ignore[type-arg]
        await asyncio.to_thread(self._service.finish)
        await asyncio.sleep(LINGER if self.server_state.connections else 0)
        await super().shutdown(sockets)


def _no_farewell(record: logging.LogRecord) -> bool:
    """Drops uvicorn's notices about open pages when it stops. Each open page keeps a connection."""
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and "graceful shutdown" not in record.getMessage()


def serve(service: Service, host: str, port: int) -> None:
    """Serves until asked to stop (Ctrl-C, SIGTERM).

    The current picture is finished first, if that takes at most `GRACE` seconds.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").addFilter(_no_farewell)
    config = uvicorn.Config(service.app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after stopping
        asyncio.run(_Server(config, service).serve())
