"""Decides which errors are temporary, and retries them."""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from altdiffusion_clip.images import ImageError

Result = TypeVar("Result")

_STATUSES = frozenset({408, 425, 429})  # and everything from 500 on
_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_CLASSES = frozenset(
    {
        # By name, because each belongs to a package that need not be installed.
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "EndpointConnectionError",  # botocore
        "HTTPClientError",
        "IncompleteRead",  # urllib3, http.client
        "IncompleteReadError",
        "NetworkError",  # httpx
        "ProtocolError",
        "RemoteProtocolError",
        "TimeoutException",
    }
)


class ShortReadError(OSError):
    """Fewer bytes arrived than there are."""


class PassingImageError(ImageError):
    """A picture cannot be read at the moment."""


def may_pass(error: BaseException) -> bool:
    """Whether an error may be temporary: a reset, a time-out, HTTP 429 or 503, a short read.

    Example:
        >>> may_pass(ConnectionResetError()), may_pass(FileNotFoundError())
        (True, False)
    """
    if isinstance(error, (ConnectionError, TimeoutError, ShortReadError)):
        return True
    status = _status_of(error)
    if status is not None:
        return status in _STATUSES or status >= 500
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return any(kind.__name__ in _CLASSES for kind in type(error).__mro__)


def _status_of(error: BaseException) -> int | None:
    """The HTTP status of an error, wherever its package stores it."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for found in (getattr(error, "status", None), getattr(response, "status_code", None), response):
        if isinstance(found, int) and 100 <= found < 600:
            return found
    return None


@dataclass(frozen=True)
class Retries:
    """How temporary errors are retried.

    Attributes:
        attempts: in total, before giving up.
        first_wait: seconds before the second attempt; doubled each time, plus up to a random second.
        longest_wait: in seconds.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def __call__(self, function: Callable[[], Result]) -> Result:
        """Calls a function until it raises no temporary error. The last error is raised.

        Example:
            >>> faults = [TimeoutError(), ConnectionResetError()]
            >>> def read() -> str:
            ...     if faults:
            ...         raise faults.pop()
            ...     return "read"
            >>> Retries(first_wait=0)(read)
            'read'
        """
        jitter = min(1.0, self.first_wait)
        retrying = Retrying(
            retry=retry_if_exception(may_pass),
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential_jitter(initial=self.first_wait, max=self.longest_wait, jitter=jitter),
            reraise=True,
        )
        return retrying(function)
