"""The running server, as programs see it: its calls, its limits, attacks on it, and its end."""

import concurrent.futures
import json
import pickle
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.demo.ideas import NAMES
from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.server import Service
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.images import load_image
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.ensembles import Panel
from tests.demo.conftest import data_url, demo, serving
from tests.pictures import held_out_pictures

CAT, DOG = (held_out_pictures()[place].path for place in (2, 4))
MANY = Limits(calls_per_minute=10_000)


@pytest.fixture(scope="module")
def server(pipe: AltDiffusionPipeline, scorer: AltCLIPScorer) -> Iterator[str]:
    with serving(Service(Studio(pipe, Panel([AltCLIPJudge(scorer)]), "emoji-m18"), MANY)) as address:
        yield address


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return connect(server)


def connect(address: str, **more: Any) -> Client:
    return Client(address, verbose=False, analytics_enabled=False, **more)


class TestCalls:
    """Everything that the page does, programs can do."""

    def test_draw(self, client: Client) -> None:
        *_, gallery, archive, rows = client.predict(prompt="蓝色背景上的猫", count=3, keep=2, seed=5, api_name="/draw")
        assert [row["rank"] for row in rows] == [1, 2]
        assert {row["seed"] for row in rows} < {5, 6, 7}
        assert rows[0]["cosine"] >= rows[1]["cosine"]
        assert rows[0]["settings"]["prompt"] == "蓝色背景上的猫"
        assert load_image(gallery[0]["image"]).size == (64, 64)
        assert Path(archive["value"] if isinstance(archive, dict) else archive).suffix == ".zip"

    def test_settings_come_back_from_a_picture(self, client: Client) -> None:
        *_, gallery, _, _ = client.predict(
            prompt="a dog", negative="blue", count=1, seed=9, steps=3, guidance=2.5, width=96, scheduler="unipc",
            api_name="/draw",
        )  # fmt: skip
        assert client.predict(handle_file(gallery[0]["image"]), api_name="/restore") == (
            "a dog", "blue", 3, 2.5, 9, 96, 64, "unipc",
        )  # fmt: skip

    def test_change(self, client: Client) -> None:
        *_, gallery, _, rows = client.predict(
            picture=handle_file(str(CAT)), painted={}, prompt="苹果", count=1, api_name="/change"
        )
        assert rows[0]["settings"]["strength"] == 0.7
        assert load_image(gallery[0]["image"]).size == (64, 64), "the model's own"

    @pytest.mark.parametrize("kind", ["transparent", "16 bits", "malformed EXIF"])
    def test_change_reads_pictures_as_everything_else_does(self, kind: str, client: Client, tmp_path: Path) -> None:
        path = tmp_path / "picture.png"
        red = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        red.paste((250, 30, 30, 255), (16, 16, 48, 48))
        if kind == "16 bits":
            Image.fromarray(np.full((64, 64), 8000, np.uint16)).save(path)
        elif kind == "transparent":
            red.save(path)
        else:
            red.convert("RGB").save(path, exif=b"\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01")
        expected = np.asarray(load_image(path), int)[:8, :8].mean()
        *_, gallery, _, _ = client.predict(
            picture=handle_file(str(path)),
            painted={},
            prompt="a cat",
            strength=0.05,
            count=1,
            steps=20,
            api_name="/change",
        )
        assert abs(np.asarray(load_image(gallery[0]["image"]), int)[:8, :8].mean() - expected) < 40

    def test_change_where_it_was_painted(self, client: Client, tmp_path: Path) -> None:
        cat = tmp_path / "cat.png"
        load_image(CAT).convert("RGB").resize((64, 64)).save(cat)
        paint = Image.new("RGBA", (32, 32))
        paint.paste((0, 0, 0, 255), (0, 0, 16, 32))
        *_, gallery, _, _ = client.predict(
            picture=handle_file(str(cat)),
            painted={"mask": data_url(paint)},
            prompt="苹果",
            count=1,
            api_name="/change",
        )
        before, after = (load_image(path).convert("RGB") for path in (cat, gallery[0]["image"]))
        right, left = (32, 0, 64, 64), (0, 0, 32, 64)
        assert before.crop(right).tobytes() == after.crop(right).tobytes()
        assert before.crop(left).tobytes() != after.crop(left).tobytes()
        with pytest.raises(AppError, match="The file is not a picture"):
            client.predict(
                picture=handle_file(str(CAT)), painted={"mask": "http://a/b.png"}, prompt="a", api_name="/change"
            )

    def test_rank(self, client: Client) -> None:
        status, table, csv = client.predict(
            uploads=[handle_file(str(CAT)), handle_file(str(DOG))], prompts="一只狗\na cat", api_name="/rank"
        )
        assert "2 ranked" in status
        assert table.count("<td") == 4
        assert Path(csv).read_text(encoding="utf-8-sig").splitlines()[1].startswith(DOG.name)

    def test_compare(self, client: Client) -> None:
        *_, gallery, _, rows = client.predict(ko="", ar="", seed=4, steps=1, api_name="/compare")
        expected = [name for code, name in NAMES.items() if code not in ("ko", "ar")]
        assert [each["caption"].split(" · ")[0] for each in gallery] == expected
        assert {row["seed"] for row in rows} == {4}

    def test_errors_are_in_the_language_asked_for(self, client: Client) -> None:
        with pytest.raises(AppError, match="提示词为空"):
            client.predict(prompt=" ", language="zh", api_name="/draw")
        for wrong in ({"steps": 0}, {"count": 1000}, {"width": 10**6}, {"seed": -2}, {"guidance": 1e9}):
            with pytest.raises(AppError, match=r"must be between|greater than|less than|[Vv]alue"):
                client.predict(prompt="a", **wrong, api_name="/draw")
        with pytest.raises(AppError, match=r"Width must be a multiple of \d+\."):
            client.predict(prompt="a", width=72, api_name="/draw")

    def test_only_documented_calls_are_open(self, client: Client) -> None:
        named = client.view_api(return_format="dict")["named_endpoints"]
        assert set(named) == {"/draw", "/restore", "/change", "/rank", "/compare"}

    def test_health_and_metrics(self, client: Client, server: str) -> None:
        client.predict(prompt="a cat", count=1, steps=1, api_name="/draw")
        assert httpx.get(f"{server}/health").json() == {"status": "ok", "model": "emoji-m18"}
        text = httpx.get(f"{server}/metrics").text
        assert 'altdiffusion_calls_total{call="draw",outcome="done"}' in text
        assert "altdiffusion_calls_waiting 0.0" in text


class TestAttacks:
    """None of it runs, leaks, or takes the page from others."""

    def call(self, server: str, name: str, data: list[Any]) -> str:
        started = httpx.post(f"{server}/gradio_api/call/{name}", json={"data": data})
        if started.status_code != 200:
            return started.text
        with httpx.stream("GET", f"{server}/gradio_api/call/{name}/{started.json()['event_id']}", timeout=60) as answer:
            return "".join(answer.iter_text())

    def upload(self, server: str, path: Path) -> str:
        with path.open("rb") as file:
            answer = httpx.post(f"{server}/gradio_api/upload", files={"files": (path.name, file)})
        assert answer.status_code == 200
        return answer.json()[0]

    def file(self, path: str) -> dict[str, Any]:
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    @pytest.mark.parametrize(
        "path",
        ["/etc/passwd", "/tmp/../etc/passwd", "../../../../etc/passwd", "/proc/self/environ", __file__,
         str(emoji_m18_folder() / "model_index.json")],
    )  # fmt: skip
    def test_paths_outside_the_upload_folder(self, path: str, server: str) -> None:
        answer = self.call(server, "rank", [[self.file(path)], "a cat", "en"])
        assert "event: error" in answer
        assert "ranked" not in answer
        answer = self.call(server, "restore", [self.file(path), "en"])
        assert "event: error" in answer

    @pytest.mark.parametrize("prefix", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api/stream/"])
    @pytest.mark.parametrize(
        "path",
        ["/etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "//etc/passwd",
         "/tmp/gradio/../../etc/passwd", "file:///etc/passwd", "/proc/self/environ", "pyproject.toml", ".git/config", "http://127.0.0.1:1/"],
    )  # fmt: skip
    def test_files_of_the_server(self, prefix: str, path: str, server: str) -> None:
        answer = httpx.get(server + prefix + path)
        assert answer.status_code in (403, 404, 405)
        assert "root:" not in answer.text

    def test_a_picture_of_200_megapixels(self, server: str, tmp_path: Path) -> None:
        Image.new("1", (16_000, 12_500)).save(tmp_path / "huge.png")
        path = self.upload(server, tmp_path / "huge.png")
        assert "too large" in self.call(server, "restore", [self.file(path), "en"])
        assert "0 ranked" in self.call(server, "rank", [[self.file(path)], "a cat", "en"])
        answer = self.call(server, "change", [self.file(path), {}, "a cat", "", 0.7, 1, 2, 3, 0, "", False, "en"])
        assert "too large" in answer

    def test_an_svg_with_a_script(self, server: str, tmp_path: Path) -> None:
        (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
        path = self.upload(server, tmp_path / "a.svg")
        answer = self.call(server, "rank", [[self.file(path)], "a cat", "en"])
        assert "The file is not a picture" in answer
        answer = self.call(server, "change", [self.file(path), {}, "a", "", 0.7, 1, 2, 3, 0, "", False, "en"])
        assert "The file is not a picture" in answer
        back = httpx.get(f"{server}/gradio_api/file={path}")
        assert back.headers.get("content-disposition", "").startswith("attachment"), "it is not shown, so nothing runs"

    def test_an_upload_of_a_pickle(self, server: str, tmp_path: Path) -> None:
        marker = tmp_path / "it-ran"

        class Bomb:
            def __reduce__(self) -> Any:
                return Path.touch, (marker,)

        for name, said in (("weights.bin", "Invalid file type"), ("picture.png", "The file is not a picture")):
            (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
            path = self.upload(server, tmp_path / name)
            assert said in self.call(server, "rank", [[self.file(path)], "a cat", "en"])
            assert said in self.call(server, "restore", [self.file(path), "en"])
        assert not marker.exists()

    def test_a_prompt_of_a_megabyte(self, client: Client) -> None:
        with pytest.raises(AppError, match="too long"):
            client.predict(prompt="猫" * 350_000, api_name="/draw")
        with pytest.raises((AppError, httpx.HTTPStatusError, ValueError)):
            client.predict(prompt="a" * 3_000_000, api_name="/draw")

    def test_control_characters_and_markup_are_text(self, client: Client) -> None:
        prompt = "a\x00 \x1b[31mcat\x1b[0m <img src=x onerror=alert(1)>"
        *_, rows = client.predict(prompt=prompt, count=1, steps=1, api_name="/draw")
        assert rows[0]["prompt"] == "a   [31mcat [0m <img src=x onerror=alert(1)>"
        _, table, _ = client.predict(uploads=[handle_file(str(CAT))], prompts=prompt, api_name="/rank")
        assert "<img src=x" not in table

    def test_addresses_are_not_fetched(self, server: str) -> None:
        answer = self.call(server, "rank", [[self.file(f"{server}/health")], "a cat", "en"])
        assert "Addresses are not fetched" in answer

    @pytest.mark.parametrize("route", ["run/draw", "api/draw", "run/predict", "api/predict"])
    def test_nobody_passes_by_the_queue(self, route: str, server: str) -> None:
        config = httpx.get(f"{server}/config").json()
        number = next(each["id"] for each in config["dependencies"] if each["api_name"] == "draw")
        body = {"data": ["a", "", 1, 1, 1, 3, 0, 64, 64, "", False, "en"], "fn_index": number, "session_hash": "x"}
        answer = httpx.post(f"{server}/gradio_api/{route}", json=body)
        assert 400 <= answer.status_code < 500
        assert "Picture" not in answer.text

    def test_a_thousand_requests_a_second_from_one_client(self, server: str) -> None:
        flood = {"X-Forwarded-For": "203.0.113.7"}  # as a proxy on this machine names its client
        codes: list[int] = []

        def ask(_: int) -> None:
            with httpx.Client(headers=flood) as one:
                codes.extend(one.get(f"{server}/health").status_code for _ in range(150))

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(8)))
        assert codes.count(200) == 1000, "so many are allowed in ten seconds"
        assert codes.count(429) == 200
        start = time.monotonic()
        assert httpx.get(f"{server}/health").status_code == 200, "others are served"
        assert time.monotonic() - start < 2


class TestOtherModels:
    """What a licence and a queue ask for."""

    @pytest.fixture(scope="class")
    def strict(
        self, pipe: AltDiffusionPipeline, scorer: AltCLIPScorer, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[str]:
        folder = tmp_path_factory.mktemp("model")
        shutil.copy(emoji_m18_folder() / "model_index.json", folder)
        (folder / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n")
        limits = Limits(queue=2, calls_per_minute=10_000)
        with serving(Service(Studio(pipe, Panel([AltCLIPJudge(scorer)]), str(folder)), limits)) as address:
            yield address

    def test_the_licence_is_accepted_first(self, strict: str) -> None:
        client = connect(strict)
        with pytest.raises(AppError, match="accept the model's licence"):
            client.predict(prompt="a cat", count=1, steps=1, api_name="/draw")
        *_, rows = client.predict(prompt="a cat", count=1, steps=1, accepted=True, api_name="/draw")
        assert len(rows) == 1

    @pytest.mark.full
    def test_a_full_queue_says_so(self, strict: str) -> None:
        clients = [connect(strict) for _ in range(6)]
        settings = {"prompt": "a cat", "count": 2, "steps": 20, "accepted": True, "api_name": "/draw"}
        jobs = [client.submit(**settings) for client in clients]
        said = []
        for job in jobs:
            try:
                job.result(timeout=120)
            except QueueError as error:
                said.append(str(error))
        assert 1 <= len(said) <= 4
        assert set(said) == {"Queue is full! Please try again."}
        full = "Queue is full"
        for client in clients:
            client.submit(**settings)
        time.sleep(0.5)
        body = {"data": ["a", "", 1, 1, 1, 3, 0, 64, 64, "", True, "en"]}
        answer = httpx.post(f"{strict}/gradio_api/call/draw", json=body)
        assert answer.status_code == 503
        assert full in answer.json()["detail"]


def test_a_name_and_a_password(pipe: AltDiffusionPipeline) -> None:
    with serving(Service(Studio(pipe, None, "emoji-m18"), MANY, auth=("me", "secret"))) as address:
        assert httpx.get(f"{address}/config").status_code == 401
        assert httpx.post(f"{address}/gradio_api/call/draw", json={"data": []}).status_code == 401
        with pytest.raises(Exception, match="Could not login"):
            connect(address, auth=("me", "wrong"))
        client = connect(address, auth=("me", "secret"))
        *_, rows = client.predict(prompt="a cat", count=1, steps=1, api_name="/draw")
        assert rows[0]["cosine"] is None, "this model brings no scorer"
        assert "/rank" not in client.view_api(return_format="dict")["named_endpoints"]


@pytest.mark.full
def test_many_clients_at_once() -> None:
    """Each client gets its own drawings, none is lost, and memory stays as it is after the first third."""
    many, turns = 50, 6
    third, total = many * turns // 3, many * turns
    with demo("--calls-per-minute", "10000") as server:
        clients = [connect(server.address) for _ in range(many)]
        memory: dict[int, int] = {}
        done, lock = 0, threading.Lock()

        def ask(number: int) -> list[tuple[int, int]]:
            nonlocal done
            pairs = []
            for turn in range(turns):
                seed = 1000 * number + turn
                *_, gallery, _, rows = clients[number].predict(
                    prompt="猫", count=1, steps=1, seed=seed, api_name="/draw"
                )
                with Image.open(gallery[0]["image"]) as picture:
                    written = json.loads(picture.text["altdiffusion"])["seed"]
                pairs.append((seed, rows[0]["seed"]))
                assert written == seed
                with lock:
                    done += 1
                    if done in (third, total):
                        memory[done] = server.memory()
            return pairs

        with concurrent.futures.ThreadPoolExecutor(many) as threads:
            pairs = [pair for found in threads.map(ask, range(many)) for pair in found]
        assert len(pairs) == total
        assert all(asked == given for asked, given in pairs)
        text = httpx.get(f"{server.address}/metrics").text
        assert f'altdiffusion_calls_total{{call="draw",outcome="done"}} {total}.0' in text
    print(f"memory after {third}: {memory[third] / 1e6:.0f} MB, after {total}: {memory[total] / 1e6:.0f} MB")
    assert memory[total] < 1.1 * memory[third]


@pytest.mark.full
def test_the_picture_in_hand_is_finished_when_the_server_is_stopped(tmp_path: Path) -> None:
    with demo() as server:
        client = connect(server.address, download_files=str(tmp_path))
        job = client.submit(prompt="a cat", count=16, steps=20, api_name="/draw")
        while not job.outputs():
            time.sleep(0.05)
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        *_, gallery, _, rows = job.result(timeout=20)
        assert 1 <= len(rows) < 16, "the one in hand, and no other"
        with Image.open(gallery[0]["image"]) as picture:
            assert picture.size == (128, 128)
        assert server.process.wait(timeout=15) == 0
        assert time.monotonic() - start < 10


def test_the_models_card_is_served(studio: Studio) -> None:
    served = TestClient(Service(studio).app).get("/card")
    assert served.text.startswith("# emoji-m18")
    assert served.headers["content-type"].startswith("text/plain")


def test_it_may_be_served_under_a_path(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/draw")
    page = TestClient(Service(studio).app).get("/").text
    assert re.search(r'"root":"[^"]*/draw"', page)
