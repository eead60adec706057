"""A file system that counts what is asked of it and fails by rule, as remote ones do."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

LOG = "FAULTY_LOG"
"""Variable that names a file for the bytes of each request, of all processes."""


class UnavailableError(Exception):
    """503, as aiohttp has it."""

    status = 503


Rule = Callable[[int, str], BaseException | str | None]
"""Of a request's number and path: an error to raise, "short" to give half of the bytes, or None."""


class Faulty(AbstractFileSystem):
    """`faulty:///folder/file`: the local file, by requests of a range each."""

    protocol = "faulty"
    cachable = False
    block_size = 4096
    lock = threading.Lock()
    rule: Rule | None = None
    requests = 0
    bytes = 0

    @classmethod
    def reset(cls, rule: Rule | None = None, block_size: int = 4096) -> None:
        """Begins to count anew."""
        cls.rule, cls.requests, cls.bytes, cls.block_size = rule, 0, 0, block_size

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return os.fspath(path).removeprefix("faulty://").rstrip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        is_folder = Path(path).is_dir()
        found = Path(path).stat()
        return {
            "name": path,
            "size": 0 if is_folder else found.st_size,
            "type": "directory" if is_folder else "file",
            "ETag": f"{found.st_mtime_ns}",
        }

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = [self.info(str(place)) for place in sorted(Path(path).iterdir())]
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        size = Path(path).stat().st_size
        return self.fetch(path, start or 0, size if end is None else min(end, size))

    def fetch(self, path: str, start: int, end: int) -> bytes:
        """One request."""
        with self.lock:
            number, type(self).requests = self.requests, self.requests + 1
        fault = type(self).rule(number, path) if type(self).rule is not None else None  # type: ignore[misc]
        if isinstance(fault, BaseException):
            raise fault
        with Path(path).open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        with self.lock:
            type(self).bytes += len(data)
        if LOG in os.environ:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{len(data)} {path}\n")
        return data[: len(data) // 2] if fault == "short" else data

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> "_File":
        return _File(self, path, mode, block_size or self.block_size, **kwargs)


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs.fetch(self.path, start, end)


fsspec.register_implementation("faulty", Faulty, clobber=True)


def fail_often(every: int = 5) -> None:
    """A reset, a time-out, a 503 or a short read for one request of so many, in this process."""
    import random

    generator = random.Random()  # another in each process
    faults = [ConnectionResetError("reset"), TimeoutError("timed out"), UnavailableError("busy"), "short"]
    Faulty.reset(lambda number, path: generator.choice(faults) if generator.randrange(every) == 0 else None)
