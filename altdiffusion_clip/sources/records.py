"""Reads tables record by record, with whatever columns they have."""

from collections.abc import Iterator
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.parquet import opened
from altdiffusion_clip.sources.places import ONCE
from altdiffusion_clip.sources.rows import Source
from altdiffusion_clip.sources.tables import decoded_lines, table_of
from altdiffusion_clip.sources.texts import parse_json

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Suffixes of tables. `.gz` may follow."""

Record = dict[str, Any]


def is_table(place: str) -> bool:
    """Whether a name belongs to a table, not to lines of text."""
    return place.lower().removesuffix(".gz").endswith(ENDINGS)


def read_records(place: str, encoding: str = "", pads: bool = False) -> Iterator[Record | str]:
    """Yields the records of a table; in place of one that cannot be read, the error.

    Args:
        place: path or URL of a CSV or TSV with a header, JSON lines, or Parquet.
        encoding: of text that is not UTF-8 and has no byte-order mark.
        pads: allow lines with fewer cells than the header, because some editors trim lines.

    Raises:
        UserError: the table cannot be read, or has a column twice.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "t.csv"
        ...     _ = path.write_text("prompt,seed\\na cat,3\\n")
        ...     list(read_records(str(path)))
        [{'prompt': 'a cat', 'seed': '3'}]
    """
    try:
        if place.lower().endswith(".parquet"):
            with opened(place, ONCE) as parquet:
                for batch in parquet.iter_batches(1024):
                    yield from batch.to_pylist()
            return
        if place.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson")):
            yield from map(_record, filter(str.strip, decoded_lines(Source(place, encoding=encoding), ONCE)))
            return
        cells = table_of(Source(place, encoding=encoding), ONCE)
        header = next(cells, [])
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{place} has the column {twice} twice")
        for row in filter(None, cells):
            if len(row) == len(header) or (pads and len(row) < len(header)):
                yield dict(zip(header, row, strict=not pads))
            else:
                yield f"{len(row)} cells in a table of {len(header)} columns"
    except FileNotFoundError:
        raise UserError(f"cannot read {place}: no such file") from None
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror or error}") from error


def _record(line: str) -> Record | str:
    try:
        record = parse_json(line)
    except ValueError:
        return "no JSON"
    return record if isinstance(record, dict) else "no JSON object"
