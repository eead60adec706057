"""Finds pictures of data sets, in folders with various names and in tar files."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.tars import samples


def find_folder(folder: Path, *names: str) -> Path:
    """The first of several folders that exists, or their parent."""
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def tar_samples(path: Path) -> Iterator[dict[str, Located]]:
    """The samples of a webdataset tar: files with the same name, by suffix.

    Raises:
        UserError: it is not a tar, or a compressed one.
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
