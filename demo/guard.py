"""What stands around every call of the page: it is counted, and its errors are told in the visitor's language."""

import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from altdiffusion_clip.demo.metrics import Metrics
from altdiffusion_clip.demo.texts import Refusal, say
from altdiffusion_clip.errors import UserError, one_line

logger = logging.getLogger(__name__)


class Guard:
    """Knows the calls that are being served.

    Args:
        metrics: that count them.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running = 0
        self._closing = False
        self._changed = threading.Condition()

    @contextmanager
    def call(self, name: str, language: str) -> Iterator[None]:
        """Counts a call, and says what is wrong with it in one line.

        Args:
            name: of the call.
            language: of the page.

        Raises:
            gr.Error: shown on the page.
        """
        start, outcome = time.monotonic(), "done"
        try:
            self._begin()
            yield
        except GeneratorExit:
            outcome = "left"
            raise
        except UserError as error:
            outcome = "refused"
            message = error.said(language) if isinstance(error, Refusal) else one_line(error)
            raise gr.Error(message, print_exception=False) from None
        except Exception as error:
            outcome = "failed"
            # The message of an error may quote a prompt or a path, so neither the log nor the visitor gets it.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("the call %s failed (%s)\n%s", name, type(error).__name__, where)
            raise gr.Error(say("failed", language), print_exception=False) from None
        finally:
            self._end()
            self._metrics.calls.labels(name, outcome).inc()
            self._metrics.seconds.labels(name).observe(time.monotonic() - start)

    def _begin(self) -> None:
        with self._changed:
            self._running += 1
            self._metrics.running.set(self._running)
            if self._closing:
                raise Refusal("closing")

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._metrics.running.set(self._running)
            self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Refuses new calls, and waits until those in hand have ended.

        Args:
            seconds: that this may take.

        Returns:
            Whether all have ended.
        """
        with self._changed:
            self._closing = True
            return self._changed.wait_for(lambda: self._running == 0, seconds)
