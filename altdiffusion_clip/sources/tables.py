"""Reads rows of JSON lines, CSV and TSV."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.places import open_file
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import Columns, Cursor, Read, Row, row_of
from altdiffusion_clip.sources.texts import NOT_UTF8, encoding_of, parse_json, refuse

if TYPE_CHECKING:
    from altdiffusion_clip.sources.rows import Source

_HEAD = 4


def read_json_lines(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of JSON lines, as in `read_rows`."""
    number = cursor.row if cursor.offset is not None else 0
    with open_file(source.place, retries=retries) as file:
        encoding = encoding_of(file.read(_HEAD), source.encoding)
        for line, offset in _lines(file, encoding, cursor.offset or 0):
            if not line.strip():
                continue
            number += 1
            if number <= cursor.row:
                continue
            place = f"{source.name}:{number - 1}"
            try:
                record = parse_json(line.decode(encoding).lstrip("\ufeff") if isinstance(line, bytes) else line)
            except UnicodeDecodeError:
                row = Row(place, error=NOT_UTF8)
            except ValueError:
                row = Row(place, error="no JSON")
            else:
                is_row = isinstance(record, dict)
                row = (
                    row_of(record, place, source.columns, source.root) if is_row else Row(place, error="no JSON object")
                )
            yield row, Cursor(number, offset)


def read_table(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of a CSV or TSV with a header, as in `read_rows`."""
    by_tabs = is_tsv(source.place)
    with open_file(source.place, retries=retries) as file:
        encoding = encoding_of(file.read(_HEAD), source.encoding)
        header_lines = _Decoded(source.place, file, encoding, 0)
        header = next(cells_of(header_lines, by_tabs), [])
        check_names(source.place, header, source.columns)
        resumes = cursor.offset is not None
        lines = _Decoded(source.place, file, encoding, cursor.offset or 0) if resumes else header_lines
        for number, cells in enumerate(cells_of(lines, by_tabs), cursor.row if resumes else 0):
            if number < cursor.row:
                continue
            place = f"{source.name}:{number}"
            if len(cells) != len(header):
                row = Row(place, error=f"{len(cells)} cells in a table of {len(header)} columns")
            else:
                row = row_of(dict(zip(header, cells, strict=True)), place, source.columns, source.root)
            yield row, Cursor(number + 1, lines.offset)


def lines_of(source: "Source", retries: Retries) -> Iterator[str]:
    """The unparsed lines of JSON lines that are rows."""
    with open_file(source.place, retries=retries) as file:
        encoding = encoding_of(file.read(_HEAD), source.encoding)
        for line, _ in _lines(file, encoding, 0):
            if line.strip():
                # A line that does not decode is a row without a score.
                yield line.decode(encoding, "replace").lstrip("\ufeff") if isinstance(line, bytes) else line


def table_of(source: "Source", retries: Retries) -> Iterator[list[str]]:
    """The cells of a table, the header first."""
    yield from cells_of(decoded_lines(source, retries), is_tsv(source.place))


def decoded_lines(source: "Source", retries: Retries) -> Iterator[str]:
    """The decoded lines of a whole file.

    Raises:
        UserError: while reading, if they have another encoding.
    """
    with open_file(source.place, retries=retries) as file:
        yield from _Decoded(source.place, file, encoding_of(file.read(_HEAD), source.encoding), 0)


def is_tsv(place: str) -> bool:
    """Whether the cells of a table are separated by tabs."""
    return place.lower().removesuffix(".gz").endswith(".tsv")


def check_names(place: str, names: Sequence[str], columns: Columns) -> None:
    """Checks that the columns of pictures and texts exist.

    Raises:
        UserError: one is missing.
    """
    if not all(name in names or name.partition(".")[0] in names for name in (columns.image, columns.text)):
        raise UserError(
            f"{place} has the columns {', '.join(names)[:200]}; {columns.image} and {columns.text} are expected, "
            "or name others with --image-column and --text-column"
        )


def cells_of(lines: Iterable[str], by_tabs: bool) -> Iterator[list[str]]:
    """The cells of each line of a table, of any length."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # cells may be as large as a page of HTML
    # Quotation marks in a TSV belong to the text.
    return csv.reader(lines, "excel-tab", quoting=csv.QUOTE_NONE) if by_tabs else csv.reader(lines)


class _Decoded:
    """The decoded lines of a file with the offset of the next line, or None if it is not usable."""

    def __init__(self, place: str, file: IO[bytes], encoding: str, offset: int) -> None:
        self.offset: int | None = offset
        self._place, self._encoding = place, encoding
        self._lines = _lines(file, encoding, offset)

    def __iter__(self) -> "_Decoded":
        return self

    def __next__(self) -> str:
        try:
            line, self.offset = next(self._lines)
            text = line.decode(self._encoding) if isinstance(line, bytes) else line
        except UnicodeDecodeError as error:
            raise refuse(self._place, error) from None
        return text.lstrip("\ufeff").replace("\0", "")


def _lines(file: IO[bytes], encoding: str, offset: int) -> Iterator[tuple[bytes | str, int | None]]:
    """Lines from an offset on with the offset after each. In UTF-16 and UTF-32 they are text without offsets."""
    file.seek(offset)
    if encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        for text in io.TextIOWrapper(file, encoding, newline=""):
            yield text, None
        return
    for line in file:
        offset += len(line)
        yield line, offset
