"""Embeddings kept on disk by what they are of, so that a second run takes seconds."""

import hashlib
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)
_AT_ONCE = 500
"""Keys in one question; SQLite's oldest limit is 999."""


def default_cache() -> Path:
    """`$ALTDIFFUSION_CACHE`, or `altdiffusion-clip` where the system keeps caches."""
    named = os.environ.get("ALTDIFFUSION_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "altdiffusion-clip"


def key_of(data: bytes) -> bytes:
    """The key of a text's or a file's bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


class EmbeddingCache:
    """Vectors of one system by the bytes that they are of.

    A database of SQLite's: it can be read by several runs at once, and a run that is killed leaves it whole.

    Args:
        folder: for the database; None to keep nothing.
        fingerprint: of the system.

    Example:
        >>> cache = EmbeddingCache(None, "a")
        >>> cache.put([key_of(b"x")], np.ones((1, 4), np.float32))
        >>> cache.get([key_of(b"x")])
        {}
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._connection: sqlite3.Connection | None = None
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(folder / "embeddings.sqlite", timeout=60.0)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (system TEXT, key BLOB, vector BLOB, PRIMARY KEY (system, key)) "
                "WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors that are there, float32 (dim,) each, by key."""
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(keys), _AT_ONCE):
            part = list(dict.fromkeys(keys[start : start + _AT_ONCE]))
            if self._connection is None:
                break
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector FROM embeddings WHERE system = ? AND key IN ({marks})"
            try:
                rows = self._connection.execute(query, [self._fingerprint, *part]).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                break
            found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
        return found

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Keeps vectors, float32 (keys, dim)."""
        if self._connection is None:
            return
        rows = [
            (self._fingerprint, key, np.ascontiguousarray(vector, np.float32).tobytes())
            for key, vector in zip(keys, vectors, strict=True)
        ]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        logger.warning("embeddings are not kept: %s", error)
        self.close()
