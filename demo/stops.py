"""Stops a visitor's drawing, even while it waits."""

import threading
from collections import OrderedDict

_MOST = 10_000


class Stops:
    """Whether to stop each visitor's running or waiting drawing.

    Example:
        >>> stops = Stops()
        >>> stops.expect("me")
        >>> stops.stop("me")
        >>> stops.of("me").is_set()
        True
    """

    def __init__(self) -> None:
        self._events: OrderedDict[str, threading.Event] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, visitor: str) -> None:
        """Registers a drawing that waits."""
        self.forget(visitor)
        self.of(visitor)

    def of(self, visitor: str) -> threading.Event:
        """The event that is set to stop the drawing."""
        with self._lock:
            event = self._events.setdefault(visitor, threading.Event())
            while len(self._events) > _MOST:
                self._events.popitem(last=False)
            return event

    def stop(self, visitor: str) -> None:
        """Stops the visitor's drawing, if there is one."""
        with self._lock:
            event = self._events.get(visitor)
        if event is not None:
            event.set()

    def forget(self, visitor: str) -> None:
        """Removes a drawing that has ended, or whose visitor has left."""
        with self._lock:
            self._events.pop(visitor, None)
