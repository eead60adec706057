"""Reads rows of Parquet: only the columns that are needed, one row group at a time."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.sources import places
from altdiffusion_clip.sources.places import ONCE, open_file
from altdiffusion_clip.sources.retries import PassingImageError, Retries, may_pass
from altdiffusion_clip.sources.row import Cursor, Read, row_of
from altdiffusion_clip.sources.tables import check_names

if TYPE_CHECKING:
    from altdiffusion_clip.sources.rows import Source

ROWS_AT_ONCE = 64
"""Parquet may contain the pictures."""


def read_parquet(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of a Parquet file, as in `read_rows`."""
    with opened(source.place, retries) as parquet:
        names = parquet.schema_arrow.names
        check_names(source.place, names, source.columns)
        columns = source.columns
        asked = {columns.image, columns.text, columns.language, columns.row_id}
        wanted = [name for name in names if name in asked or any(one.startswith(f"{name}.") for one in asked)]
        number = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if number + count <= cursor.row:
                number += count
                continue
            for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=wanted):
                skipped = max(0, min(len(batch), cursor.row - number))
                number += skipped
                for record in batch.slice(skipped).to_pylist():
                    row = row_of(record, f"{source.name}:{number}", columns, source.root)
                    number += 1
                    yield row, Cursor(number)


@dataclass(frozen=True)
class InParquet:
    """A picture in a cell of a Parquet file. Pictures of one row group are read together.

    Attributes:
        url: of the file, or its path.
        group: index of the row group.
        row: index in the group.
        column: with encoded pictures, or structs with their `bytes`, as the `datasets` library writes them.
    """

    url: str
    group: int
    row: int
    column: str

    @property
    def name(self) -> str:
        """The URL or path with the row."""
        return f"{self.url}: row {self.row} of group {self.group}"

    def is_there(self) -> bool:
        """Whether the file exists."""
        filesystem, path = places.file_system_of(self.url)
        return bool(filesystem.isfile(path))

    def read(self, retries: Retries = ONCE) -> bytes:
        """The encoded picture.

        Raises:
            ImageError: it cannot be read or does not exist.
            PassingImageError: it cannot be read at the moment.
        """
        try:
            cell = _column(self.url, self.group, self.column, retries)[self.row].as_py()
        except UserError as error:
            raise ImageError(str(error)) from None
        except Exception as error:  # each fsspec file system raises its own errors
            kind = PassingImageError if may_pass(error) else ImageError
            raise kind(f"cannot be read ({one_line(error)})") from None
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes) or not data:
            raise ImageError("no bytes of a picture")
        return data


@functools.lru_cache(maxsize=2)
def _column(url: str, group: int, column: str, retries: Retries) -> Any:
    with opened(url, retries) as parquet:
        return parquet.read_row_group(group, columns=[column]).column(0).combine_chunks()


def read_located(place: str, column: str, retries: Retries = ONCE) -> Iterator[dict[str, Any]]:
    """The records of a Parquet file. Pictures inside it become `InParquet` and are not read.

    Args:
        place: a path or URL.
        column: of pictures; a column of paths is left alone.
        retries: of each request.

    Raises:
        UserError: the file is not Parquet.
    """
    with opened(place, retries) as parquet:
        schema = parquet.schema_arrow
        # The type of structs is "struct<bytes: binary, path: string>".
        is_packed = column in schema.names and "binary" in str(schema.field(column).type)
        columns = [name for name in schema.names if name != column or not is_packed]
        for group in range(parquet.num_row_groups):
            row = 0
            for batch in parquet.iter_batches(1024, row_groups=[group], columns=columns):
                for record in batch.to_pylist():
                    yield {**record, column: InParquet(place, group, row, column)} if is_packed else record
                    row += 1


def count_rows(source: "Source", retries: Retries) -> int:
    """The number of rows according to the file's footer."""
    with opened(source.place, retries) as parquet:
        check_names(source.place, parquet.schema_arrow.names, source.columns)
        return int(parquet.metadata.num_rows)


@contextmanager
def opened(place: str, retries: Retries) -> Iterator[Any]:
    """Opens a Parquet file with pyarrow.

    Raises:
        UserError: it is not Parquet.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('Parquet files need pyarrow; pip install "altdiffusion-clip[score]"') from None
    with open_file(place, 0, retries, cache_type="bytes", block_size=places.BUFFER) as file:
        try:
            # Reads what is needed of a row group in a few requests, and nothing twice.
            parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
        except (OSError, pyarrow.ArrowException) as error:
            if may_pass(error):
                raise
            raise UserError(f"{place} cannot be read: {one_line(error)}") from error
        yield parquet
