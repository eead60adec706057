"""What is refused before it reaches the page."""

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from altdiffusion_clip.demo.gatekeeper import Gatekeeper
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.metrics import Metrics

JOIN = "/gradio_api/queue/join"
LIMITS = Limits(calls_per_minute=3, requests_per_second=2, body_bytes=1000, visitor_bytes=3000)
UPLOAD = "/gradio_api/upload"


async def echo(request: Request) -> Response:
    return Response(await request.body())


def behind(limits: Limits = LIMITS, **more: Any) -> tuple[TestClient, Metrics]:
    metrics = Metrics()
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Gatekeeper(app, limits, metrics), **more), metrics


def test_what_is_right_goes_through_unchanged() -> None:
    client, _ = behind()
    body = json.dumps({"data": [{"path": "/tmp/gradio/a.png"}, "http://in a prompt"]}).encode()
    assert client.post(JOIN, content=body).content == body
    assert client.get("/").status_code == 200


def test_one_call_too_many() -> None:
    client, metrics = behind()
    answers = [client.post(JOIN, json={}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json() == {"detail": "Too many requests. Try again in a minute."}
    assert int(answers[-1].headers["retry-after"]) > 0
    assert client.get("/").status_code == 200, "the page itself is still there"
    assert 'requests_refused_total{reason="too_often"} 1.0' in metrics.text()


def test_in_the_visitors_language() -> None:
    client, _ = behind(Limits(calls_per_minute=1))
    answers = [client.post(JOIN, json={}, headers={"Accept-Language": "zh-CN,en"}) for _ in range(2)]
    assert answers[1].json() == {"detail": "请求过于频繁，请一分钟后再试。"}


def test_too_many_requests_of_any_kind_from_one_visitor() -> None:
    client, _ = behind()
    codes = [client.get("/").status_code for _ in range(25)]
    assert codes == [200] * 20 + [429] * 5


def test_visitors_do_not_share_a_rate() -> None:
    metrics = Metrics()
    app = Gatekeeper(Starlette(routes=[Route("/", echo)]), LIMITS, metrics)
    one, other = TestClient(app, client=("10.0.0.1", 1)), TestClient(app, client=("10.0.0.2", 1))
    for _ in range(25):
        one.get("/")
    assert one.get("/").status_code == 429
    assert other.get("/").status_code == 200


def test_large_bodies() -> None:
    client, _ = behind()
    assert client.post(JOIN, content=b"x" * 1001).status_code == 413
    assert client.post(JOIN, content=iter([b"x" * 600, b"x" * 600])).status_code == 413, "also without a length"
    assert client.post(JOIN, content=b"", headers={"Content-Length": "many"}).status_code == 413


def test_uploads_of_one_visitor() -> None:
    client, _ = behind()
    assert client.post(UPLOAD, content=b"x" * 3001).status_code == 413
    assert client.post(UPLOAD, content=iter([b"x" * 600])).status_code == 413, "it does not say how long it is"
    codes = [client.post(UPLOAD, content=b"x" * 1400).status_code for _ in range(3)]
    assert codes == [200, 200, 429]


def test_an_upload_that_is_longer_than_it_said_ends_at_the_limit() -> None:
    parts = [{"type": "http.request", "body": b"x" * 900, "more_body": True} for _ in range(9)]
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message)

    async def receive() -> Any:
        return parts.pop()

    headers = [(b"content-length", b"900")]
    scope = {"type": "http", "method": "POST", "path": UPLOAD, "headers": headers, "client": ("a", 1)}
    asyncio.run(Gatekeeper(app, LIMITS, Metrics())(scope, receive, None))
    assert len(seen) == 3, "three of 900 are within the limit"


@pytest.mark.parametrize(
    "body",
    [
        '{"data": [{"path": "http://169.254.169.254/latest/meta-data"}]}',
        '{"data": [[{"p\\u0061th": "HTTPS://example.org/a.png", "meta": {"_type": "gradio.FileData"}}]]}',
        '{"data": [{"background": {"path": "ftp://example.org/a.png"}, "layers": []}]}',
    ],
)
def test_addresses_are_not_fetched(body: str) -> None:
    client, _ = behind()
    answer = client.post(JOIN, content=body.encode())
    assert answer.status_code == 400
    assert answer.json() == {"detail": "Upload the file. Addresses are not fetched."}


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 900, b'{"path": 5}', b"null"])
def test_what_is_no_call_is_left_to_the_page(body: bytes) -> None:
    client, _ = behind()
    assert client.post(JOIN, content=body).content == body
