"""Finds near duplicates among pictures by their vectors.

Pictures are visited from the best score to the worst, and a picture is dropped if it resembles one that was kept. So
the best of each group is kept, and no two kept pictures are alike: as in SemDeDup (arXiv 2303.09540), without clusters.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from altdiffusion_clip.errors import UserError

BATCH = 1024
"""Pictures looked up at once."""
EXACT = 300_000
"""Up to so many pictures are compared exactly. Above that, an approximate index is used, which may miss some."""
BLOCK = 1 << 15
"""Kept pictures compared with a batch at once."""


@dataclass(frozen=True)
class Pictured:
    """Rows with the vectors of their pictures.

    Attributes:
        rows: ids.
        scores: float (rows,).
        pictures: the name of each row's picture.
        vectors: of the pictures, by name, float32 (dim,), unit vectors.
    """

    rows: Sequence[str]
    scores: np.ndarray
    pictures: Sequence[str]
    vectors: dict[str, np.ndarray]


def near_duplicates(parts: Iterable[Pictured], least: float) -> dict[str, tuple[str, float]]:
    """Finds the rows whose picture resembles a better row's: that row's id, and the cosine of the two pictures.

    Rows that share a picture are not duplicates of each other; they are kept or dropped together. The vectors of all
    pictures are held in an unnamed temporary file, and those of kept pictures in memory.

    Args:
        parts: all rows, in parts.
        least: the lowest cosine of two pictures that count as alike.

    Raises:
        UserError: usearch is not installed.

    Example:
        >>> vectors = {"a": np.float32([1, 0]), "b": np.float32([0.8, 0.6]), "c": np.float32([0, 1])}
        >>> part = Pictured(["1", "2", "3"], np.array([0.5, 0.9, 0.7]), ["a", "b", "c"], vectors)
        >>> near_duplicates([part], least=0.7)
        {'1': ('2', 0.8)}
    """
    with TemporaryFile() as file:
        names: dict[str, int] = {}
        best: list[float] = []
        owners: list[str] = []
        row_ids: list[str] = []
        picture_of: list[int] = []
        dim = 0
        for part in parts:
            for row, score, name in zip(part.rows, part.scores.tolist(), part.pictures, strict=True):
                if name not in names:
                    names[name] = len(names)
                    best.append(score)
                    owners.append(row)
                    vector = np.ascontiguousarray(part.vectors[name], np.float32)
                    dim = len(vector)
                    file.write(vector.tobytes())
                place = names[name]
                if score > best[place]:
                    best[place], owners[place] = score, row
                row_ids.append(row)
                picture_of.append(place)
        if not names:
            return {}
        file.flush()
        vectors = np.memmap(file, np.float32, "r", shape=(len(names), dim))
        like = _greedy(vectors, np.argsort(-np.array(best), kind="stable"), least)
    return {
        row: (owners[like[place][0]], like[place][1])
        for row, place in zip(row_ids, picture_of, strict=True)
        if place in like
    }


def _greedy(vectors: np.ndarray, order: np.ndarray, least: float) -> dict[int, tuple[int, float]]:
    """For each dropped picture, the kept one that it resembles and their cosine."""
    kept = (_Compared if len(order) <= EXACT else _Indexed)(vectors)
    like: dict[int, tuple[int, float]] = {}
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = vectors[places]
        nearest, cosines = kept.nearest(batch)
        among = batch @ batch.T
        stays: list[int] = []
        for row, place in enumerate(places.tolist()):
            other, cosine = int(nearest[row]), float(cosines[row])
            mine = among[row, stays]
            if len(mine) and mine.max() > cosine:
                other, cosine = int(places[stays[int(mine.argmax())]]), float(mine.max())
            if cosine >= least:
                like[place] = other, round(cosine, 6)
            else:
                stays.append(row)
        kept.add(places[stays], batch[stays])
    return like


class _Compared:
    """Kept pictures, compared exactly.

    Args:
        vectors: of all pictures.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = np.empty(vectors.shape, np.float32)  # grows as pictures are added
        self._places = np.empty(len(vectors), np.int64)
        self._count = 0

    def add(self, places: np.ndarray, vectors: np.ndarray) -> None:
        """Adds pictures."""
        into = slice(self._count, self._count + len(places))
        self._vectors[into], self._places[into] = vectors, places
        self._count = into.stop

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest kept picture of each vector, and the cosine."""
        places, best = np.full(len(vectors), -1), np.full(len(vectors), -np.inf, np.float32)
        for start in range(0, self._count, BLOCK):
            stop = min(start + BLOCK, self._count)
            cosines = vectors @ self._vectors[start:stop].T
            first = cosines.argmax(1)
            found = cosines[np.arange(len(vectors)), first]
            better = found > best
            places[better], best[better] = self._places[start + first[better]], found[better]
        return places, best


class _Indexed:
    """Kept pictures in an approximate nearest-neighbour index.

    Args:
        vectors: of all pictures.

    Raises:
        UserError: usearch is not installed.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        try:
            from usearch.index import Index
        except ImportError:
            raise UserError('usearch is not installed; pip install "altdiffusion-clip[score]"') from None
        self._index: Any = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_search=128)
        self._vectors = vectors

    def add(self, places: np.ndarray, vectors: np.ndarray) -> None:
        """Adds pictures."""
        self._index.add(places.astype(np.uint64), vectors)

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest kept picture of each vector, and the cosine."""
        if not len(self._index):
            return np.full(len(vectors), -1), np.full(len(vectors), -np.inf)
        found = self._index.search(vectors, 1)
        places = found.keys[:, 0].astype(np.int64)
        # The index is in half precision; the cosine is computed from the full vectors.
        return places, np.einsum("ij,ij->i", vectors, self._vectors[places])


def write_duplicates(path: Path, duplicates: dict[str, tuple[str, float]]) -> None:
    """Writes what was found, completely or not at all, because finding it takes a while."""
    import pyarrow
    import pyarrow.parquet

    from altdiffusion_clip.files import atomic_path

    rows = [(row, other, cosine) for row, (other, cosine) in duplicates.items()]
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    kinds = (pyarrow.string(), pyarrow.string(), pyarrow.float64())
    names = ("row_id", "like", "cosine")
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, arrays, strict=True))), temporary)


def read_duplicates(path: Path) -> dict[str, tuple[str, float]]:
    """Reads what `write_duplicates` wrote."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    columns = (table[name].to_pylist() for name in ("row_id", "like", "cosine"))
    return {row: (other, cosine) for row, other, cosine in zip(*columns, strict=True)}
