"""Pictures where a data set keeps them: in tar files, in rows of Parquet."""

import functools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import ONCE
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.tars import samples


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a cell of a Parquet file, as bytes or as the object that `datasets` writes.

    Attributes:
        path: the file.
        column: its name.
        group: row group.
        row: within the group.
    """

    path: Path
    column: str
    group: int
    row: int

    @property
    def name(self) -> str:
        """The path and the place."""
        return f"{self.path}: row {self.row} of group {self.group}"

    def is_there(self) -> bool:
        """Whether the file is there."""
        return self.path.is_file()

    def read(self, retries: Retries = ONCE) -> bytes:
        """The encoded picture."""
        del retries  # the file is on this machine
        cell = _column(self.path, self.column, self.group)[self.row].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ImageError("no bytes of a picture")
        return data


@functools.lru_cache(maxsize=2)
def _column(path: Path, column: str, group: int) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read_row_group(group, [column]).column(0).combine_chunks()


def find_folder(folder: Path, *names: str) -> Path:
    """The first of some folders that is there, or the folder that they would lie in."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def tar_samples(path: Path) -> Iterator[dict[str, Located]]:
    """The samples of a webdataset tar: its files by their endings, those of one name together.

    Raises:
        UserError: it is no tar, or a compressed one.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            found = samples(tar, lambda file: Located(str(path), file.size, file.offset_data, key=file.name))
            for _, members, _ in found:
                yield members
    except (tarfile.TarError, EOFError):
        raise UserError(
            f"{path} is not a plain tar file; unpack it if it is compressed, or download it again"
        ) from None
