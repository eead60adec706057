"""Counts by name in a database on disk, so that memory does not grow with the number of pictures."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from altdiffusion_clip.errors import UserError

CACHE_KB = 500
"""Memory of each database."""


def temporary_database(schema: str) -> sqlite3.Connection:
    """Opens a database in the folder for temporary files. It is gone when it is closed or its process ends."""
    # Threads take turns by the locks of those who use it.
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute(f"PRAGMA cache_size = -{CACHE_KB}")
    database.executescript(schema)
    return database


@contextmanager
def needing_room() -> Iterator[None]:
    """Turns an error of a temporary database into one line.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(f"cannot write to {tempfile.gettempdir()}: {error}; make room there or set TMPDIR") from error


class Tally:
    """Counts by name, in order of first appearance.

    Example:
        >>> tally = Tally()
        >>> tally.add("cat"), tally.add("dog"), tally.add("cat")
        (1, 1, 2)
        >>> list(tally), tally["dog"], tally["hen"], "hen" in tally
        (['cat', 'dog'], 1, 0, False)
    """

    def __init__(self) -> None:
        self._database = temporary_database(
            "CREATE TABLE tally (number INTEGER PRIMARY KEY, name TEXT UNIQUE, count INTEGER)"
        )

    def add(self, name: str, by: int = 1) -> int:
        """Adds to a count, and returns it.

        Raises:
            UserError: the disk is full.
        """
        with needing_room():
            self._database.execute(
                "INSERT INTO tally (name, count) VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
                (name, by),
            )
        return self[name]

    def __getitem__(self, name: str) -> int:
        return self._find(name) or 0

    def __contains__(self, name: object) -> bool:
        return self._find(name) is not None

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM tally").fetchone()[0])

    def __iter__(self) -> Iterator[str]:
        return (name for (name,) in self._database.execute("SELECT name FROM tally ORDER BY number"))

    def _find(self, name: Any) -> int | None:
        found = self._database.execute("SELECT count FROM tally WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])
