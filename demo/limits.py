"""What the demo refuses, so that one visitor cannot take it from the others."""

import threading
import time
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from altdiffusion_clip.errors import UserError

_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one call.

    Attributes:
        characters: of a prompt.
        pictures: drawn in one call.
        steps: of the scheduler.
        uploads: pictures ranked in one call.
        upload_bytes: of one file.
        upload_pixels: of one picture.
        prompts: ranked by, in one call.
        queue: calls that wait; one more is refused.
        calls: of one visitor, within `seconds`.
        seconds: see `calls`.
    """

    characters: int = 2_000
    pictures: int = 16
    steps: int = 100
    uploads: int = 64
    upload_bytes: int = 20_000_000
    upload_pixels: int = 40_000_000
    prompts: int = 12
    queue: int = 64
    calls: int = 30
    seconds: float = 60.0

    def prompt(self, text: str | None) -> str:
        """A prompt without control characters and spaces at its ends.

        Raises:
            UserError: it is empty or too long.
        """
        control = ("Cc", "Cs")
        clean = "".join(c if c in "\n\t" or unicodedata.category(c) not in control else " " for c in text or "").strip()
        if not clean:
            raise UserError("empty_prompt")
        if len(clean) > self.characters:
            raise UserError("long_prompt")
        return clean

    def picture(self, path: str | Path) -> None:
        """Looks at an uploaded picture's header, before anything decodes it.

        Raises:
            UserError: it is too large, or no picture.
        """
        if Path(path).stat().st_size > self.upload_bytes:
            raise UserError("large_upload")
        try:
            with Image.open(path) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            raise UserError("large_upload") from None
        except (OSError, ValueError, SyntaxError):
            raise UserError("no_picture") from None
        if width * height > self.upload_pixels:
            raise UserError("large_upload")


class RateLimit:
    """How often each visitor may call: so many times in so many seconds, counted over a sliding window.

    Args:
        limits: `calls` and `seconds` of them.

    Example:
        >>> rate = RateLimit(Limits(calls=1))
        >>> rate.check("somebody")
        >>> rate.check("somebody")
        Traceback (most recent call last):
        ...
        altdiffusion_clip.errors.UserError: too_often
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, client: str) -> None:
        """Counts a call.

        Raises:
            UserError: it is one too many.
        """
        now = time.monotonic()
        with self._lock:
            recent = [when for when in self._calls.get(client, []) if now - when < self._limits.seconds]
            if len(recent) >= self._limits.calls:
                raise UserError("too_often")
            self._calls[client] = [*recent, now]
            self._calls.move_to_end(client)
            while len(self._calls) > _CLIENTS:
                self._calls.popitem(last=False)
