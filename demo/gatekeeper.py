"""Rejects requests before they reach the page: too many, too large, or with addresses to fetch."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from altdiffusion_clip.demo.limits import Limits, RateLimit
from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.texts import say

_MODEL_CALLS = ("/gradio_api/queue/join", "/gradio_api/call/")
_UPLOADS = "/gradio_api/upload"
_WINDOW = 10


class Gatekeeper:
    """ASGI middleware in front of the page.

    Visitors are identified by their address. Behind a proxy on the same machine, that is the address in
    `X-Forwarded-For`, which uvicorn reads.

    Args:
        app: the page.
        limits: of requests and their bodies.
        metrics: count rejected requests.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._requests = RateLimit(limits.requests_per_second * _WINDOW, _WINDOW)
        self._calls = RateLimit(limits.calls_per_minute, 60)
        self._uploaded = RateLimit(limits.visitor_bytes, 600)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves or rejects a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def refuse(status: int, reason: str) -> None:
            self._metrics.refused.labels(reason).inc()
            spoken = Headers(scope=scope).get("accept-language", "en")
            detail = say(reason, "zh" if spoken.lower().startswith("zh") else "en")
            headers = {"Retry-After": str(_WINDOW), "Connection": "close"}
            await JSONResponse({"detail": detail}, status, headers)(scope, receive, send)

        client = scope["client"][0] if scope.get("client") else ""
        path, posts = scope["path"], scope["method"] == "POST"
        if not self._requests.allows(client):
            await refuse(429, "too_often")
            return
        if posts and path.startswith(_MODEL_CALLS) and not self._calls.allows(client):
            await refuse(429, "too_often")
            return
        upload = posts and path.startswith(_UPLOADS)
        most = self._limits.visitor_bytes if upload else self._limits.body_bytes
        length = Headers(scope=scope).get("content-length", "" if upload else "0")
        if not length.isdigit() or int(length) > most:
            await refuse(413, "large_request")
            return
        if upload and not self._uploaded.allows(client, int(length)):
            await refuse(429, "too_often")
            return
        bounded = _bounded(receive, most)
        if upload or not posts:
            await self._app(scope, bounded, send)
            return
        body = await _whole(bounded)
        if body is None:
            await refuse(413, "large_request")
        elif _names_an_address(body):
            await refuse(400, "no_addresses")
        else:
            await self._app(scope, _again(body, receive), send)


def _bounded(receive: Receive, most: int) -> Receive:
    """Passes a body on until it is too large, then acts as if the visitor had disconnected."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= most else {"type": "http.disconnect"}

    return bounded


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request; None if it is incomplete."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Replays a body that was read, then passes on what follows."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


def _names_an_address(body: bytes) -> bool:
    """Whether a call has an address in place of a file. Gradio would download it for anyone."""
    try:
        paths = [each["path"] for each in _objects(json.loads(body)) if "path" in each]
    except (ValueError, RecursionError):
        return False  # Gradio does not parse it as JSON either
    return any(isinstance(path, str) and "://" in path for path in paths)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)
