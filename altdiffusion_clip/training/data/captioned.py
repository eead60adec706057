"""Reads the captions of pictures in tables, Parquet, webdataset tars and folders, without reading pictures."""

import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import SUFFIXES
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.sources.folders import read_folder
from altdiffusion_clip.sources.parquet import InParquet, read_located
from altdiffusion_clip.sources.pictures import Located, StoredImage
from altdiffusion_clip.sources.places import file_system_of, is_remote, parent_of, under
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.row import FIRST
from altdiffusion_clip.sources.rows import Source, UnfinishedError, kind_of, told
from altdiffusion_clip.sources.tars import TEXT_ENDINGS, content_of, picture_among, samples_from
from altdiffusion_clip.sources.texts import decode, parse_json
from altdiffusion_clip.training.data.records import LeftOut, name_of, read_records

CAPTIONS_FILE = "captions.jsonl"
IMAGE = "image"
RETRIES = Retries()
"""Retries of requests to remote file systems."""


@dataclass(frozen=True)
class Captions:
    """A picture with its captions.

    Attributes:
        place: of its record, for messages.
        image: its place; None if the record has none.
        said: captions by language code.
    """

    place: str
    image: StoredImage | None
    said: dict[str, list[str]]


def read_captions(place: str, left_out: LeftOut, encoding: str = "") -> Iterator[Captions]:
    """Streams the captioned pictures of a source.

    Args:
        place: path or URL of a table or Parquet file, whose records have `image` (a path relative to the file, or in
            Parquet the picture itself) and `captions` (lists by language code), or `caption` or `text` (in `language`,
            or "en"); of a webdataset tar, whose samples have a picture and such a .json or a .txt; or of a folder with
            a `captions.jsonl`, or with a .txt beside each picture.
        left_out: counts the records that cannot be read.
        encoding: of texts that are not UTF-8 and have no byte-order mark.

    Raises:
        UserError: the source does not exist, is of another kind, or cannot be read further.
    """
    try:
        with told(Source(place), "breaks off"):
            yield from _read(place, left_out, encoding)
    except UnfinishedError as error:
        raise UserError(f"{error}; give the same command again when it can be read") from error


def _read(place: str, left_out: LeftOut, encoding: str) -> Iterator[Captions]:
    kind = kind_of(place, RETRIES)
    if kind == "folder":
        filesystem, path = file_system_of(place)
        if filesystem.isfile(posixpath.join(path, CAPTIONS_FILE)):
            place, kind = posixpath.join(place, CAPTIONS_FILE), "table"
    if kind == "folder":
        yield from _folder(place, left_out, encoding)
    elif kind == ".tar":
        yield from _tar(place, left_out, encoding)
    elif kind == ".parquet":
        for number, record in enumerate(read_located(place, IMAGE, RETRIES), start=1):
            yield _of_record(f"{name_of(place)} row {number}", record, place)
    else:
        for where, record in read_records(place, left_out, encoding):
            yield _of_record(where, record, place)


def said_of(record: dict[str, Any]) -> dict[str, list[str]]:
    """The captions of a record by language code, without empty ones.

    Example:
        >>> said_of({"captions": {"en": ["a cat", " "], "zh": "猫"}}), said_of({"text": "un chat", "language": "fr"})
        ({'en': ['a cat'], 'zh': ['猫']}, {'fr': ['un chat']})
    """
    captions = record.get("captions", record.get("caption", record.get("text")))
    if not isinstance(captions, dict):
        captions = {str(record.get("language", "en")): captions}
    said: dict[str, list[str]] = defaultdict(list)
    for code, value in captions.items():
        for sentence in value if isinstance(value, list) else [value]:
            if isinstance(sentence, str) and sentence.strip():
                said[str(code)].append(normalise(sentence).strip())
    return dict(said)


def _of_record(where: str, record: dict[str, Any], place: str) -> Captions:
    image = record.get(IMAGE)
    if isinstance(image, str) and image:
        image = Located(under(parent_of(place), image))
    return Captions(where, image if isinstance(image, (Located, InParquet)) else None, said_of(record))


def _folder(place: str, left_out: LeftOut, encoding: str) -> Iterator[Captions]:
    for row, _ in read_folder(Source(place, encoding=encoding), FIRST, RETRIES):
        if row.error:
            left_out.add(row.error, row.row_id)
            continue
        image = row.image if isinstance(row.image, Located) else None
        yield Captions(row.row_id, image, said_of({"text": list(row.texts) or row.text}))


def _tar(place: str, left_out: LeftOut, encoding: str) -> Iterator[Captions]:
    if place.lower().endswith((".gz", ".tgz")):
        raise UserError(f"{place} is compressed, so its pictures cannot be read one by one; unpack it with gunzip")
    for key, found, _ in samples_from(Source(place), FIRST, RETRIES, partial(_take, place)):
        where = f"{name_of(place)} {key}"
        if isinstance(found, str):
            left_out.add("the tar file is damaged", f"{name_of(place)} after {key} samples")
            return
        texts = {ending: data for ending, data in found.items() if isinstance(data, bytes)}
        try:
            record = parse_json(decode(texts["json"], encoding)) if "json" in texts else {}
            text = next((decode(texts[ending], encoding) for ending in TEXT_ENDINGS if texts.get(ending)), None)
        except ValueError:  # not JSON, or another encoding
            left_out.add("its text or .json cannot be read", where)
            continue
        record = record if isinstance(record, dict) else {}
        if text is not None and not isinstance(record.get("captions"), dict):
            record = {"text": text, "language": record.get("language", "en")}
        image = picture_among(found)
        yield Captions(where, image if isinstance(image, Located) else None, said_of(record))


def _take(place: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> Located | bytes:
    """Keeps the place of a picture and the contents of a text."""
    if f".{member.name.lower().rpartition('.')[2]}" in SUFFIXES:
        return Located(place, member.size, member.offset_data, key=member.name)
    return content_of(tar, member)


def is_missing(image: StoredImage) -> bool:
    """Whether a picture's file is missing. Remote files are not checked, because each check is a request."""
    return isinstance(image, Located) and image.offset is None and not is_remote(image.url) and not image.is_there()
