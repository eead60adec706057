"""What stands around every call."""

import threading
import time

import gradio as gr
import pytest

from altdiffusion_clip.demo.guard import Guard
from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.errors import UserError


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def count(metrics: Metrics, outcome: str) -> str:
    line = f'altdiffusion_calls_total{{call="draw",outcome="{outcome}"}} '
    return next((text.removeprefix(line) for text in metrics.text().splitlines() if text.startswith(line)), "0")


def test_the_log_has_no_prompt_and_no_path(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error), Guard(metrics).call("draw", "en"):
        raise UserError("a mistake")
    assert caplog.text == "", "a visitor's mistake"
    prompt = "一只" + "猫"
    with pytest.raises(gr.Error), Guard(metrics).call("draw", "en"):
        raise RuntimeError(prompt)
    assert "RuntimeError" in caplog.text
    assert "一只猫" not in caplog.text


@pytest.mark.parametrize(
    ("error", "said", "outcome"),
    [
        (Refusal("empty_prompt"), "提示词为空，请先输入。", "refused"),
        (UserError("a line that\nhas no key"), "a line that has no key", "refused"),
        (RuntimeError("of 一只猫 in /srv/secret"), "服务器出错了，请重试。", "failed"),
    ],
)
def test_errors_are_one_line_in_the_visitors_language(
    error: Exception, said: str, outcome: str, metrics: Metrics
) -> None:
    with pytest.raises(gr.Error) as raised, Guard(metrics).call("draw", "zh"):
        raise error
    assert raised.value.message == said
    assert raised.value.print_exception is False
    assert count(metrics, outcome) == "1.0"


def test_calls_are_counted(metrics: Metrics) -> None:
    guard = Guard(metrics)
    with guard.call("draw", "en"):
        assert "altdiffusion_calls_running 1.0" in metrics.text()
    assert "altdiffusion_calls_running 0.0" in metrics.text()
    assert count(metrics, "done") == "1.0"
    assert 'altdiffusion_call_seconds_count{call="draw"} 1.0' in metrics.text()


def test_closing_waits_for_what_is_in_hand_and_refuses_the_rest(metrics: Metrics) -> None:
    guard, begun = Guard(metrics), threading.Event()

    def work() -> None:
        with guard.call("draw", "en"):
            begun.set()
            time.sleep(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    assert not guard.close(0.01)
    with pytest.raises(gr.Error, match="server is stopping"), guard.call("draw", "en"):
        pass
    assert guard.close(10)
    thread.join()
