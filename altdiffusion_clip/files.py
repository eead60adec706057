"""Writes files and folders so that a stop at any moment leaves either the old or the new, never half of one."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError

_LEFTOVER = re.compile(r"\..+-[0-9a-f]{8}\.\w+")
"""Names of the temporary files of `atomic_path`, which a kill may leave behind."""


@contextmanager
def atomic_path(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside the destination. On success it is synced to disk and renamed.

    The temporary file keeps the destination's suffix, because Pillow chooses a format by it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as path:
        ...         _ = path.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(destination)
    # Created inside the `try`, because Ctrl-C may come at any time.
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(destination: Path) -> Path:
    suffix = destination.suffix or ".partial"  # torch refuses hidden files without one
    return destination.with_name(f".{destination.stem}-{secrets.token_hex(4)}{suffix}")


def write_bytes(destination: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, completely or not at all. This takes half as long as `atomic_path`, which matters for pictures."""
    destination = Path(destination)
    temporary = _temporary(destination)
    try:
        try:
            file = temporary.open("xb")
        except FileNotFoundError:
            destination.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb")
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(destination)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(destination: str | os.PathLike[str], text: str) -> None:
    """Writes a text file as UTF-8, completely or not at all."""
    write_bytes(destination, text.encode())


@contextmanager
def atomic_folder(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary folder beside the destination. On success its files are synced and it is renamed.

    The destination must not exist, or be an empty folder. A killed process leaves the temporary folder behind; its name
    begins with a dot.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(Path(folder) / "a") as path:
        ...         _ = (path / "b.txt").write_text("whole")
        ...     (Path(folder) / "a" / "b.txt").read_text()
        'whole'
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}-{secrets.token_hex(4)}.partial")
    try:
        temporary.mkdir()
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        temporary.replace(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed runs. No other run may be using the folder."""
    for path in folder.rglob(".*"):
        if path.is_file() and _LEFTOVER.fullmatch(path.name):
            path.unlink()


def lock_of(path: Path, taken: str, timeout: float = 0) -> Any:
    """Acquires a lock for this process. Call its `release` to give it back.

    Args:
        path: of the lock file, which is not removed.
        taken: the error message if another process holds it.
        timeout: seconds to wait for the other process.

    Raises:
        UserError: another process holds it, or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=timeout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(taken) from None
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    return lock


def free_bytes(destination: str | os.PathLike[str]) -> int:
    """The free bytes of the disk that a file or folder will be written to."""
    place = Path(destination).absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
