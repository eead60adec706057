"""Reads the rows of a folder of pictures, each with a text file of the same name."""

import functools
import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from altdiffusion_clip.images import SUFFIXES
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.places import file_system_of, is_remote, read_range
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import Cursor, Read, Row, checked
from altdiffusion_clip.sources.tars import TEXT_ENDINGS
from altdiffusion_clip.sources.texts import NOT_UTF8, decode

if TYPE_CHECKING:
    from altdiffusion_clip.sources.rows import Source


def read_folder(source: "Source", cursor: Cursor, retries: Retries) -> Iterator[Read]:
    """The rows of a folder and its subfolders, as in `read_rows`."""
    filesystem, top = file_system_of(source.place)
    found = retries(lambda: filesystem.find(top, detail=True))
    pictures = sorted(name for name in found if _is_picture(posixpath.relpath(name, top)))
    for number, path in enumerate(pictures[cursor.row :], cursor.row):
        place = posixpath.relpath(path, top)
        stem = posixpath.splitext(path)[0]
        beside = next((f"{stem}.{ending}" for ending in TEXT_ENDINGS if f"{stem}.{ending}" in found), None)
        if beside is None:
            row = Row(place, error=f"no {PurePosixPath(stem).name}.txt beside it")
        else:
            try:
                read = functools.partial(read_range, filesystem, beside, found[beside].get("size"))
                text = decode(retries(read), source.encoding)
            except UnicodeDecodeError:
                row = Row(place, error=f"its text is {NOT_UTF8}")
            else:
                url = filesystem.unstrip_protocol(path) if is_remote(source.place) else path
                picture = Located(url, found[path].get("size"))
                row = checked(place, picture, text, None)
        yield row, Cursor(number + 1)


def passed_over(place: str, retries: Retries) -> dict[str, int]:
    """Counts the files of a folder that are neither readable pictures nor their texts, by suffix."""
    filesystem, top = file_system_of(place)
    names = [PurePosixPath(posixpath.relpath(name, top)) for name in retries(lambda: filesystem.find(top))]
    known = {*SUFFIXES, *(f".{ending}" for ending in TEXT_ENDINGS)}
    others = [name for name in names if not _is_hidden(name) and name.suffix.lower() not in known]
    counts = Counter(name.suffix.lower() or name.name for name in others)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path)


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in path.parts)
