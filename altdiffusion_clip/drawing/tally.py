"""Databases for what a run has to remember of its rows, so that memory does not grow with the number of pictures."""

import sqlite3
import tempfile
from collections.abc import Iterator

from altdiffusion_clip.errors import UserError

CACHE_KB = 500
"""Memory of each database."""


class TemporaryDatabase:
    """An SQLite database in the folder for temporary files. It is gone when its process ends.

    Args:
        schema: statements that create its tables.
    """

    def __init__(self, schema: str) -> None:
        # Threads take turns by the locks of those who use it.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        self._connection.executescript(schema)

    def execute(self, statement: str, *values: str | int) -> sqlite3.Cursor:
        """Executes a statement.

        Raises:
            UserError: the disk is full.
        """
        try:
            return self._connection.execute(statement, values)
        except sqlite3.OperationalError as error:
            place = tempfile.gettempdir()
            raise UserError(f"cannot write to {place}: {error}; make room there or set TMPDIR") from error


class Tally:
    """Counts by name, in order of first appearance.

    Example:
        >>> tally = Tally()
        >>> for name in ("cat", "dog", "cat"):
        ...     tally.add(name)
        >>> list(tally), tally["cat"], tally["hen"], "hen" in tally
        (['cat', 'dog'], 2, 0, False)
    """

    def __init__(self) -> None:
        self._database = TemporaryDatabase(
            "CREATE TABLE tally (number INTEGER PRIMARY KEY, name TEXT UNIQUE, count INTEGER)"
        )

    def add(self, name: str, by: int = 1) -> None:
        """Adds to a count.

        Raises:
            UserError: the disk is full.
        """
        self._database.execute(
            "INSERT INTO tally (name, count) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET count = count + excluded.count",
            name, by,
        )  # fmt: skip

    def is_new(self, name: str) -> bool:
        """Adds a name with a count of 0, and says whether it was new.

        Raises:
            UserError: the disk is full.
        """
        return bool(self._database.execute("INSERT OR IGNORE INTO tally (name, count) VALUES (?, 0)", name).rowcount)

    def __getitem__(self, name: str) -> int:
        return self._find(name) or 0

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM tally").fetchone()[0])

    def __iter__(self) -> Iterator[str]:
        return (name for (name,) in self._database.execute("SELECT name FROM tally ORDER BY number"))

    def _find(self, name: str) -> int | None:
        found = self._database.execute("SELECT count FROM tally WHERE name = ?", name).fetchone()
        return None if found is None else int(found[0])
