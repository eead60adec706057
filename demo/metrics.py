"""Counters for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


class Metrics:
    """The counters of one server. They say nothing about visitors.

    Example:
        >>> metrics = Metrics()
        >>> metrics.pictures.inc()
        >>> "altdiffusion_pictures_total 1.0" in metrics.text()
        True
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("altdiffusion_calls", "Calls that have ended", ["call", "outcome"], registry=self.registry)
        self.seconds = Histogram(
            "altdiffusion_call_seconds", "Seconds of a call, without its waiting", ["call"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.pictures = Counter("altdiffusion_pictures", "Pictures drawn", registry=self.registry)
        self.refused = Counter(
            "altdiffusion_requests_refused", "Requests beyond a limit", ["reason"], registry=self.registry
        )
        self.running = Gauge("altdiffusion_calls_running", "Calls that are being served", registry=self.registry)
        self._waiting = Gauge("altdiffusion_calls_waiting", "Calls in the queue", registry=self.registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Sets the function that returns the queue's length."""
        self._waiting.set_function(length)

    def text(self) -> str:
        """The counters in Prometheus' text format."""
        return generate_latest(self.registry).decode()
