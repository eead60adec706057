"""Expands the names of sources: files, globs, braces, and lists of them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import fsspec

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources.places import file_system_of, is_remote, same_place
from altdiffusion_clip.sources.rows import ending_of

_BRACES = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_GLOB = frozenset("*?[")


def expand(names: Sequence[str]) -> list[str]:
    """Expands names to places, in order and without duplicates.

    Args:
        names: paths and URLs; with `*`, `?` and `[...]`; with `{a,b}` or `{0000..0099}`; or `@FILE`, with a name per
            line.

    Raises:
        UserError: a pattern matches nothing, or a list cannot be read.

    Example:
        >>> expand(["s3://bucket/{00..02}.tar"])
        ['s3://bucket/00.tar', 's3://bucket/01.tar', 's3://bucket/02.tar']
    """
    found: dict[str, str] = {}
    for name in names:
        for place in _places(name):
            found.setdefault(same_place(place), place)
    return list(found.values())


def label_of(places: Sequence[str]) -> dict[str, str]:
    """The labels of places in row names: the file's name, or the whole place if two files have the same name.

    Example:
        >>> label_of(["/x/0.tar", "/y/0.tar", "/y/1.tar"])
        {'/x/0.tar': '/x/0.tar', '/y/0.tar': '/y/0.tar', '/y/1.tar': '1.tar'}
    """
    names = {place: PurePosixPath(place.rstrip("/")).name for place in places}
    counts = Counter(names.values())
    return {place: name if counts[name] == 1 else place.rstrip("/") for place, name in names.items()}


def _places(name: str) -> Iterator[str]:
    if name.startswith("@") and not Path(name).exists():
        try:
            lines = Path(name[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the list {name[1:]}: {one_line(error)}") from error
        for line in lines:
            if line.strip() and not line.startswith("#"):
                yield from _places(line.strip())
    elif not is_remote(name) and Path(name).exists():
        yield name
    else:
        for place in _without_braces(name):
            yield from _matching(place) if _GLOB & set(place) else [place]


def _without_braces(name: str) -> Iterator[str]:
    braces = _BRACES.search(name)
    if braces is None:
        yield name
        return
    numbers = _RANGE.fullmatch(braces[1])
    if numbers:
        first, last = (int(number) for number in numbers.groups())
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        choices = braces[1].split(",")
    for choice in choices:
        yield from _without_braces(name[: braces.start()] + choice + name[braces.end() :])


def _matching(pattern: str) -> list[str]:
    try:
        filesystem, path = file_system_of(pattern)
        found = sorted(filesystem.glob(path))
    except Exception as error:  # each fsspec file system raises its own errors
        raise UserError(f"cannot reach {pattern}: {one_line(error)}") from error
    places = [filesystem.unstrip_protocol(place) if is_remote(pattern) else place for place in found]
    places = [place for place in places if _can_be_read(place)]
    if not places:
        raise UserError(f"{pattern} stands for no file that can be read")
    return places


def _can_be_read(place: str) -> bool:
    try:
        ending_of(place)
    except UserError:
        return False
    return True


def check_protocols(places: Sequence[str]) -> None:
    """Checks that fsspec supports the URLs.

    Raises:
        UserError: a protocol is unknown, or its package is not installed. The message says which.
    """
    for protocol in sorted({place.partition("://")[0] for place in places if is_remote(place)}):
        try:
            fsspec.get_filesystem_class(protocol.split("::")[-1])
        except (ImportError, ValueError) as error:
            raise UserError(f"cannot reach {protocol}:// ({one_line(error)})") from None
