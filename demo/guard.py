"""Wraps every call of the page: counts it, and reports errors in the visitor's language."""

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
    """Keeps track of the calls in progress.

    Args:
        metrics: count the calls.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running = 0
        self._closing = False
        self._changed = threading.Condition()

    @contextmanager
    def call(self, name: str, language: str) -> Iterator[None]:
        """Counts a call, and turns its errors into one line.

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
            # Error messages may quote prompts or paths, so neither the log nor the visitor sees them.
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
        """Rejects new calls, and waits for those in progress.

        Args:
            seconds: to wait at most.

        Returns:
            Whether all calls have ended.
        """
        with self._changed:
            self._closing = True
            return self._changed.wait_for(lambda: self._running == 0, seconds)
