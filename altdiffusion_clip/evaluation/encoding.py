"""A system's vectors of texts and of stored pictures, batch by batch, through the cache."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from altdiffusion_clip.evaluation.cache import EmbeddingCache, key_of
from altdiffusion_clip.evaluation.datasets.stored import StoredImage, decode
from altdiffusion_clip.evaluation.systems.base import System
from altdiffusion_clip.images import ImageError

_READERS = 4


@dataclass(frozen=True)
class EncodedImages:
    """Vectors of pictures.

    Attributes:
        vectors: float32 (images, dim); NaN where a picture could not be read.
        broken: place, name and reason of each of these.
    """

    vectors: np.ndarray
    broken: list[tuple[int, str, str]]


def encode_texts(system: System, texts: Sequence[str], cache: EmbeddingCache, batch_size: int = 256) -> np.ndarray:
    """Unit vectors, float32 (texts, dim). Equal texts are encoded once; those of like length together."""
    distinct = sorted(dict.fromkeys(texts), key=len)
    keys = [key_of(b"text " + text.encode("utf-8", "surrogatepass")) for text in distinct]
    known = cache.get(keys)
    new = [(key, text) for key, text in zip(keys, distinct, strict=True) if key not in known]
    for part in _batches(new, batch_size, f"texts, {system.name}"):
        vectors = system.encode_texts([text for _, text in part]).numpy()
        known.update(zip((key for key, _ in part), vectors, strict=True))
        cache.put([key for key, _ in part], vectors)
    of_text = dict(zip(distinct, keys, strict=True))
    return np.stack([known[of_text[text]] for text in texts])


def encode_images(
    system: System, images: Sequence[StoredImage], cache: EmbeddingCache, batch_size: int = 64
) -> EncodedImages:
    """Unit vectors of pictures, which are read and decoded by threads while the system encodes."""
    vectors: list[np.ndarray | None] = [None] * len(images)
    broken: list[tuple[int, str, str]] = []
    with ThreadPoolExecutor(_READERS) as threads:
        for places in _batches(range(len(images)), batch_size, f"pictures, {system.name}"):
            data = list(threads.map(_read, (images[place] for place in places)))
            keys = [key_of(b"image " + item) if isinstance(item, bytes) else b"" for item in data]
            known = cache.get([key for key in keys if key])
            new: dict[bytes, Any] = {}
            for place, key, item in zip(places, keys, data, strict=True):
                if isinstance(item, ImageError):
                    broken.append((place, images[place].name, str(item)))
                elif key not in known:
                    new[key] = item
            decoded = dict(zip(new, threads.map(_decode, new.values()), strict=True))
            good = [key for key, picture in decoded.items() if not isinstance(picture, ImageError)]
            if good:
                fresh = system.encode_images([decoded[key] for key in good]).numpy()
                known.update(zip(good, fresh, strict=True))
                cache.put(good, fresh)
            for place, key in zip(places, keys, strict=True):
                if isinstance(decoded.get(key), ImageError):
                    broken.append((place, images[place].name, str(decoded[key])))
                elif key:
                    vectors[place] = known[key]
    width = next((len(vector) for vector in vectors if vector is not None), 0)
    nothing = np.full(width, np.nan, np.float32)
    return EncodedImages(np.stack([nothing if v is None else v for v in vectors]), broken)


def _read(image: StoredImage) -> bytes | ImageError:
    try:
        return image.read()
    except ImageError as error:
        return error


def _decode(data: bytes) -> Any:
    try:
        return decode(data)
    except ImageError as error:
        return error


def _batches(items: Sequence[Any], size: int, what: str) -> Iterator[Any]:
    # Nothing is shown of what takes less than a second, as when all was in the cache.
    for start in tqdm(range(0, len(items), size), desc=what, delay=1.0, leave=False):
        yield items[start : start + size]
