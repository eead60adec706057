"""A demo that listens: within this process, or in one of its own."""

import base64
import contextlib
import io
import os
import signal
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.demo.server import Service
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.ensembles import Panel
from tests.processes import Command


@pytest.fixture(scope="session")
def pipe(quick_model: Path) -> AltDiffusionPipeline:
    """emoji-m18 in all but its UNet, which draws nothing that has a meaning, in no time."""
    pipe = AltDiffusionPipeline.from_pretrained(quick_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def scorer(pipe: AltDiffusionPipeline) -> AltCLIPScorer:
    return AltCLIPScorer.from_pipeline(pipe)


@pytest.fixture
def studio(pipe: AltDiffusionPipeline, scorer: AltCLIPScorer) -> Studio:
    return Studio(pipe, Panel([AltCLIPJudge(scorer)]), "emoji-m18")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(service: Service) -> Iterator[str]:
    """Serves within this process, and gives the address."""
    port, most = free_port(), Image.MAX_IMAGE_PIXELS
    server = uvicorn.Server(uvicorn.Config(service.app, port=port, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait(f"http://127.0.0.1:{port}", lambda: thread.is_alive())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        Image.MAX_IMAGE_PIXELS = most


@dataclass
class Demo:
    """`altdiffusion demo`, running."""

    process: Command
    address: str

    def memory(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[Demo]:
    """Starts `altdiffusion demo`, and sees to it that it ends with 0."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = Command(["demo", "--port", port, *arguments], Path(folder))
        try:
            _wait(f"http://127.0.0.1:{port}", lambda: process.returncode is None)
            yield Demo(process, f"http://127.0.0.1:{port}")
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0
        finally:
            process.send_signal(signal.SIGKILL)


def data_url(image: Image.Image) -> str:
    """As browsers give what was painted."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _wait(address: str, alive) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            assert b'"ok"' in urllib.request.urlopen(f"{address}/health").read()
            return
        except OSError:
            assert alive()
            assert time.monotonic() < deadline
            time.sleep(0.1)
