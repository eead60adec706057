"""The demo's limits, so that one visitor cannot block the others."""

import threading
import time
import unicodedata
from collections import OrderedDict, deque
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from altdiffusion_clip.demo.texts import Refusal

_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """Limits of the demo.

    Attributes:
        characters: of a prompt.
        pictures: drawn per call.
        steps: scheduler steps.
        uploads: pictures ranked per call.
        upload_bytes: of one file.
        upload_pixels: of one picture.
        prompts: to rank by, per call.
        body_bytes: of a request that is not an upload.
        visitor_bytes: uploaded per visitor in ten minutes.
        queue: waiting calls; further ones are rejected.
        calls_per_minute: per visitor, to the model.
        requests_per_second: per visitor, of all kinds, averaged over ten seconds.
    """

    characters: int = 2_000
    pictures: int = 16
    steps: int = 100
    uploads: int = 64
    upload_bytes: int = 20_000_000
    upload_pixels: int = 40_000_000
    prompts: int = 12
    body_bytes: int = 2_000_000
    visitor_bytes: int = 400_000_000
    queue: int = 64
    calls_per_minute: int = 30
    requests_per_second: int = 100

    def prompt(self, text: str | None) -> str:
        """Removes control characters and surrounding spaces from a prompt.

        Raises:
            Refusal: it is empty or too long.
        """
        control = ("Cc", "Cs")
        clean = "".join(c if c in "\n\t" or unicodedata.category(c) not in control else " " for c in text or "").strip()
        if not clean:
            raise Refusal("empty_prompt")
        if len(clean) > self.characters:
            raise Refusal("long_prompt", most=self.characters)
        return clean

    def within(self, **values: tuple[float, float, float]) -> None:
        """Checks numbers. Each is (value, least, most), by the key of its name in the texts.

        Raises:
            Refusal: one is missing, not a number, or out of bounds.
        """
        for name, (value, least, most) in values.items():
            if not isinstance(value, int | float):
                raise Refusal("no_number", field=name)
            if not least <= value <= most:
                raise Refusal("beyond", field=name, least=_shown(least), most=_shown(most))

    def picture(self, path: str | Path) -> None:
        """Checks the header of an uploaded picture before it is decoded.

        Raises:
            Refusal: it is too large, or not a picture.
        """
        if Path(path).stat().st_size > self.upload_bytes:
            raise Refusal("large_upload")
        try:
            with Image.open(path) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            raise Refusal("large_upload") from None
        except (OSError, ValueError, SyntaxError):
            raise Refusal("no_picture") from None
        if width * height > self.upload_pixels:
            raise Refusal("large_upload")


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


class RateLimit:
    """Limits each visitor's use over a sliding window.

    Args:
        most: uses, or other units.
        seconds: length of the window.

    Example:
        >>> rate = RateLimit(most=1, seconds=60)
        >>> rate.allows("somebody"), rate.allows("somebody"), rate.allows("somebody else")
        (True, False, True)
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._asked: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, client: str, amount: int = 1) -> bool:
        """Counts an amount and returns True, or returns False if it is too much."""
        now = time.monotonic()
        with self._lock:
            asked = self._asked.setdefault(client, deque())
            self._asked.move_to_end(client)
            while asked and now - asked[0][0] >= self._seconds:
                asked.popleft()
            if sum(each for _, each in asked) + amount > self._most:
                return False
            asked.append((now, amount))
            while len(self._asked) > _CLIENTS:
                self._asked.popitem(last=False)
            return True
