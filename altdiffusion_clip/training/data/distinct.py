"""Numbers distinct texts. What has been seen is in a database on disk, so memory does not grow with the data."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Self

CACHE_KB = 4000
"""Memory of the database."""


class DistinctTexts:
    """Numbers distinct texts in order of appearance.

    Texts are compared by digests of 64 bits. Among a hundred million texts, the probability that any two are taken for
    one is 0.03%.

    Args:
        path: of the database, which is removed at the end of the `with` block.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, DistinctTexts(Path(folder) / "seen") as texts:
        ...     [texts.number(text) for text in ("a cat", "猫", "a cat")]
        [(0, True), (1, True), (0, False)]
    """

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0

    def __enter__(self) -> Self:
        self._database = sqlite3.connect(self._path)
        # Nothing has to survive a stop, since preparation then starts again.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        self._database.execute("CREATE TABLE texts (digest INTEGER PRIMARY KEY, number INTEGER NOT NULL)")
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()
        self._path.unlink()

    def __len__(self) -> int:
        return self._count

    def number(self, text: str) -> tuple[int, bool]:
        """The number of a text, and whether it is new."""
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
        key = int.from_bytes(digest, "little", signed=True)
        if self._database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (key, self._count)).rowcount:
            self._count += 1
            return self._count - 1, True
        (number,) = self._database.execute("SELECT number FROM texts WHERE digest = ?", (key,)).fetchone()
        return int(number), False
