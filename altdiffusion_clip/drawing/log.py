"""`results.jsonl`: one row per picture, appended once the picture is written. The last row of a name counts."""

import itertools
import json
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from altdiffusion_clip.drawing.tally import TemporaryDatabase
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path

RESULTS_FILE = "results.jsonl"
SHARD_FILES = "results-*-of-*.jsonl"
"""Rows of runs that share a folder, until they are merged."""
SECONDS_UNSYNCED = 1.0
"""How long rows may remain unsynced. Syncing after every picture would be most of the cost of a row."""
Row = dict[str, Any]
_NEEDED = {"prompt", "seed", "file", "score", "rank", "model"}


class Log:
    """The rows of a folder. A temporary database knows where each one is in the file.

    If a killed run left an incomplete last line, it is cut off.

    Args:
        path: of the file.

    Raises:
        UserError: the file is not a list of results.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = TemporaryDatabase(
            "CREATE TABLE rows (number INTEGER PRIMARY KEY, name TEXT UNIQUE, its_group TEXT, start INT, length INT);"
            "CREATE INDEX by_group ON rows (its_group)"
        )
        self._live = 0  # bytes of the lines that count
        self.numbers: dict[str, list[str]] = {}
        """Ids of numbered rows by prompt, in order."""
        self._end = 0
        self._synced_at = 0.0
        if path.is_file():
            self._read()

    def __len__(self) -> int:
        return int(self._index.execute("SELECT COUNT(*) FROM rows").fetchone()[0])

    def __contains__(self, name: str) -> bool:
        return bool(self._found("name = ?", name))

    def __iter__(self) -> Iterator[Row]:
        """All rows, in order of first appearance."""
        return self._read_rows(start for (start,) in self._index.execute("SELECT start FROM rows ORDER BY number"))

    def get(self, name: str) -> Row | None:
        """The row of a picture."""
        return next(self.rows([name]), None)

    def rows(self, names: Iterable[str]) -> Iterator[Row]:
        """The rows of several pictures, without those that there are not."""
        return self._read_rows(start for name in names for _, start in self._found("name = ?", name))

    def group(self, group: str) -> list[Row]:
        """The rows of a group, in order of first appearance."""
        return list(self._read_rows(start for _, start in self._found("its_group = ?", group)))

    def groups(self) -> Iterator[str]:
        """All groups, in order of first appearance."""
        found = self._index.execute("SELECT its_group FROM rows GROUP BY its_group ORDER BY MIN(number)")
        return (group for (group,) in found)

    def _found(self, condition: str, value: str) -> list[tuple[str, int]]:
        """Names and starts of rows."""
        statement = f"SELECT name, start FROM rows WHERE {condition} ORDER BY number"
        return self._index.execute(statement, value).fetchall()

    def _read_rows(self, starts: Iterable[int]) -> Iterator[Row]:
        return map(json.loads, self._lines(starts))

    def _lines(self, starts: Iterable[int]) -> Iterator[bytes]:
        starts = iter(starts)
        first = next(starts, None)
        if first is None:
            return
        with self._path.open("rb") as file:
            for start in itertools.chain([first], starts):
                file.seek(start)
                yield file.readline()

    def append(self, rows: Iterable[Row]) -> None:
        """Writes rows. They survive a kill. A power failure may lose those of the last second.

        Raises:
            OSError: they cannot be written. Then none of them is.
        """
        lines = [(row, (json.dumps(row, ensure_ascii=False) + "\n").encode()) for row in rows]
        if not lines:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            try:
                file.write(b"".join(line for _, line in lines))
                file.flush()
                if time.monotonic() - self._synced_at > SECONDS_UNSYNCED:
                    self._sync(file)
            except OSError:
                file.truncate(self._end)
                raise
        for row, line in lines:
            self._note(row, self._end, len(line))
            self._end += len(line)

    def sync(self) -> None:
        """Syncs all rows to disk. To be called before anything is deleted because of them.

        Raises:
            OSError: they cannot be written.
        """
        if self._path.is_file():
            with self._path.open("rb+") as file:
                self._sync(file)

    def _sync(self, file: IO[bytes]) -> None:
        os.fsync(file.fileno())
        self._synced_at = time.monotonic()

    def compact(self, last: Collection[str] = ()) -> None:
        """Rewrites the file with one line per picture, group by group.

        Args:
            last: the order of these groups, which come after all others.
        """
        if self._live == self._end and all(a < b for a, b in itertools.pairwise(self._in_order(last))):
            return
        with atomic_path(self._path) as temporary, temporary.open("wb") as out:
            out.writelines(self._lines(self._in_order(last)))
        self.__init__(self._path)  # type: ignore[misc]

    def _in_order(self, last: Collection[str]) -> Iterator[int]:
        for group in itertools.chain((group for group in self.groups() if group not in last), last):
            # Sorted by number within a group, because devices finish in any order and seeds may have been added.
            found = sorted(self._found("its_group = ?", group), key=lambda each: _by_numbers(each[0]))
            yield from (start for _, start in found)

    def _read(self) -> None:
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # an incomplete line
                try:
                    row = json.loads(line)
                    if not row.keys() >= _NEEDED:
                        raise ValueError("a row lacks a field")
                except (ValueError, AttributeError) as error:
                    raise UserError(f"{self._path} is not a list of results; choose another folder") from error
                self._note(row, self._end, len(line))
                self._end += len(line)
        if self._path.stat().st_size > self._end:
            with self._path.open("rb+") as file:
                file.truncate(self._end)

    def _note(self, row: Row, start: int, length: int) -> None:
        name, group = name_of(row), group_of(row)
        is_numbered = row.get("id", "").isdigit() and row["prompt"] and not self._found("its_group = ?", group)
        added = self._index.execute(
            "INSERT OR IGNORE INTO rows (name, its_group, start, length) VALUES (?, ?, ?, ?)",
            name, group, start, length,
        )  # fmt: skip
        if not added.rowcount:
            (before,) = self._index.execute("SELECT length FROM rows WHERE name = ?", name).fetchone()
            self._live -= before
            self._index.execute("UPDATE rows SET start = ?, length = ? WHERE name = ?", start, length, name)
        elif is_numbered:
            ids = self.numbers.setdefault(row["prompt"], [])
            # Only the groups of one id in several languages can repeat it. Looking always would take far too long
            # for a table with one prompt and many seeds.
            if not row.get("language") or row["id"] not in ids:
                ids.append(row["id"])
        self._live += length


def _by_numbers(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def name_of(row: Row) -> str:
    """The name of a row's picture. Rows of older versions have only the file."""
    return str(row.get("name") or Path(row["file"]).stem)


def group_of(row: Row) -> str:
    """The group that a row is ranked in. Rows of older versions have only the prompt."""
    return str(row.get("group", row["prompt"]))


def shard_file(number: int, count: int) -> str:
    """The name of the rows' file of one of several runs that share a folder."""
    return f"results-{number}-of-{count}.jsonl"


def read_results(folder: Path) -> list[Row]:
    """Reads the rows of a folder's results; empty if there are none.

    Raises:
        UserError: a file is not a list of results.
    """
    rows = {name_of(row): row for row in Log(folder / RESULTS_FILE)}
    for path in sorted(folder.glob(SHARD_FILES)):
        rows |= {name_of(row): row for row in Log(path)}
    return list(rows.values())
