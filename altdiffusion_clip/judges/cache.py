"""Keeps vectors on disk by the content they belong to, so that a second run takes seconds."""

import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)
MOST_BYTES = 4 << 30
_AT_ONCE = 500
"""Keys per query. SQLite's oldest limit is 999."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vectors (id INTEGER PRIMARY KEY, judge TEXT, key BLOB, vector BLOB, "
    "UNIQUE (judge, key))"
)
_own = threading.local()


def default_cache() -> Path:
    """`$ALTDIFFUSION_CACHE`, or `altdiffusion-clip` in the system's cache folder."""
    named = os.environ.get("ALTDIFFUSION_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "altdiffusion-clip"


def key_of(kind: bytes, data: bytes) -> bytes:
    """The key of the bytes of a text or file, and of how they are read."""
    digest = hashlib.blake2b(kind, digest_size=16)
    digest.update(data)
    return digest.digest()


@dataclass
class VectorCache:
    """Vectors of one judge, by the bytes that they belong to.

    This is an SQLite database. Several runs can use it at once, and a killed run does not damage it. It can be pickled;
    each process and thread opens its own connection.

    Attributes:
        folder: of the database; None to keep nothing.
        fingerprint: of the judge.
        most_bytes: size limit; beyond it, the oldest vectors are dropped.

    Example:
        >>> cache = VectorCache(None, "a")
        >>> cache.put([key_of(b"text ", b"x")], np.ones((1, 4), np.float32))
        >>> cache.get([key_of(b"text ", b"x")])
        {}
    """

    folder: Path | None
    fingerprint: str
    most_bytes: int = MOST_BYTES
    _is_given_up: bool = field(default=False, repr=False)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The stored vectors of some keys, float32 (dim,) each."""
        found: dict[bytes, np.ndarray] = {}
        if not self.is_open:
            return found
        try:
            connection = self._connection()
            for start in range(0, len(keys), _AT_ONCE):
                part = list(dict.fromkeys(keys[start : start + _AT_ONCE]))
                marks = ",".join("?" * len(part))
                query = f"SELECT key, vector FROM vectors WHERE judge = ? AND key IN ({marks})"
                rows = connection.execute(query, [self.fingerprint, *part])
                found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return found

    def put(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Stores vectors, float32 (keys, dim)."""
        if not self.is_open or not len(keys):
            return
        rows = [
            (self.fingerprint, key, np.ascontiguousarray(vector, np.float32).tobytes())
            for key, vector in zip(keys, vectors, strict=True)
        ]
        try:
            connection = self._connection()
            with connection:
                connection.executemany("INSERT OR IGNORE INTO vectors (judge, key, vector) VALUES (?, ?, ?)", rows)
                self._make_room(connection)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @property
    def is_open(self) -> bool:
        """Whether anything is stored."""
        return self.folder is not None and not self._is_given_up

    def _make_room(self, connection: sqlite3.Connection) -> None:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size > self.most_bytes:
            # Drops a tenth at once. The file keeps its size, and the freed space is reused.
            first, last = connection.execute("SELECT min(id), max(id) FROM vectors").fetchone()
            connection.execute("DELETE FROM vectors WHERE id <= ?", [first + (last - first) // 10])

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection, because connections must not be shared."""
        assert self.folder is not None
        file = self.folder / "vectors.sqlite"
        known: dict[tuple[Path, int], sqlite3.Connection] = _own.__dict__.setdefault("connections", {})
        connection = known.get((file, os.getpid()))
        if connection is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=60.0)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_SCHEMA)
            known[file, os.getpid()] = connection
        return connection

    def _give_up(self, error: Exception) -> None:
        logger.warning("vectors are not kept: %s", error)
        self._is_given_up = True
