"""Writing files so that a stop at any moment leaves either the old file or the new one, never half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside the destination; on success it is synced to disk and renamed.

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
    suffix = destination.suffix or ".partial"  # torch refuses hidden files without one
    handle, name = tempfile.mkstemp(prefix=f".{destination.stem}-", suffix=suffix, dir=destination.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private; give this one the permissions that a plain open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(destination: str | os.PathLike[str], text: str) -> None:
    """Writes a text file as UTF-8, whole or not at all."""
    with atomic_path(destination) as path:
        path.write_text(text, encoding="utf-8")
