"""Rows of Parquet: of the columns that are needed, a row group at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources import places
from altdiffusion_clip.sources.places import open_file
from altdiffusion_clip.sources.retries import Retries, may_pass
from altdiffusion_clip.sources.row import Cursor, Read, row_of
from altdiffusion_clip.sources.tables import check_names

if TYPE_CHECKING:
    from altdiffusion_clip.sources.rows import Source

ROWS_AT_ONCE = 64
"""They may hold their pictures."""


def read_parquet(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of a Parquet file, as `read_rows` gives them."""
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


def count_rows(source: "Source", retries: Retries) -> int:
    """How many rows there are, by what the file says at its end."""
    with opened(source.place, retries) as parquet:
        check_names(source.place, parquet.schema_arrow.names, source.columns)
        return int(parquet.metadata.num_rows)


@contextmanager
def opened(place: str, retries: Retries) -> Iterator[Any]:
    """A Parquet file, as pyarrow opens it.

    Raises:
        UserError: it is none.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('Parquet files need pyarrow; pip install "altdiffusion-clip[score]"') from None
    with open_file(place, 0, retries, cache_type="bytes", block_size=places.BUFFER) as file:
        try:
            # What is needed of a row group in few requests, and nothing twice.
            parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
        except (OSError, pyarrow.ArrowException) as error:
            if may_pass(error):
                raise
            raise UserError(f"{place} cannot be read: {one_line(error)}") from error
        yield parquet
