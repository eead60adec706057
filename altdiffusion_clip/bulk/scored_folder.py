"""Reads the scores that `altdiffusion score` wrote."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from altdiffusion_clip.bulk.shards import Shard, ShardFolder, planned
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.embedding_files import Embeddings, read_embeddings
from altdiffusion_clip.sources.row import Columns
from altdiffusion_clip.sources.rows import Source


class ScoredFolder:
    """The scores in a folder of shards.

    Args:
        folder: written by `altdiffusion score`.

    Raises:
        UserError: it is not such a folder, or has several rows for one row of a source.
    """

    def __init__(self, folder: Path) -> None:
        self.plan = planned(folder) or {}
        if not self.plan:
            raise UserError(f"{folder} holds no scores; altdiffusion score writes them")
        self._folder = ShardFolder.there(folder)
        self.columns = self._folder.columns
        self.shards = self._folder.shards()
        if self.plan.get("captions") == "each" and any(
            shard.scored + shard.failed + shard.to_do != sum(span.count for span in shard.spans)
            for shard in self.shards
        ):
            raise UserError(f"{folder} has several scores of a row; score with --captions best, mean or first")

    def column(self, judge: str) -> int:
        """The column of a judge's scores.

        Raises:
            UserError: the judge has no scores.
        """
        if not judge:
            return 0
        names = [name.partition(":")[2] or name for name in self.columns]
        if judge not in (*names, *self.columns):
            raise UserError(f"there are no scores of {judge}; there are those of {', '.join(names)}")
        return names.index(judge) if judge in names else self.columns.index(judge)

    def source(self, place: str, label: str = "") -> Source:
        """A source, with the options it was scored with."""
        plan = self.plan
        return Source(place, Columns(*plan["columns"]), plan["image_root"], label, plan["encoding"])

    def read(self, shard: Shard) -> dict[str, np.ndarray]:
        """A shard's rows: `scores` float32 (rows, columns), NaN where missing; `language`, `error`, `row_id`."""
        import pyarrow.parquet

        wanted = ["row_id", "language", "error", *self.columns]
        table = pyarrow.parquet.read_table(self._folder.path(shard.number), columns=wanted)
        scores = [table[name].to_numpy().astype(np.float32) for name in self.columns]
        text = {name: np.array(table[name].to_pylist(), object) for name in ("row_id", "language", "error")}
        languages = np.array([language or "" for language in text["language"]], object)
        return {**text, "language": languages, "scores": np.stack(scores, 1)}

    def vectors(self, shard: Shard) -> Embeddings:
        """The vectors of a shard, and which rows they belong to.

        Raises:
            UserError: the shard has none.
        """
        path = self._folder.vectors_path(shard.number)
        if not path.is_file():
            raise UserError(f"there are no vectors beside the scores ({path.name}); score with --embeddings")
        embeddings = read_embeddings(path)
        if len(embeddings.rows) != len(embeddings.pairs):
            raise UserError(f"{path} does not say of which rows its vectors are; score again with --embeddings")
        return embeddings

    def shuffled(self) -> Iterator[tuple[str, np.ndarray]]:
        """Cosines of pictures with the texts of other rows of the same language and shard, by language."""
        for shard in self.shards:
            path = self._folder.vectors_path(shard.number)
            if not path.is_file():
                continue
            vectors = read_embeddings(path)
            languages = np.array(vectors.languages, object)
            for language in np.unique(languages.astype(str)):
                pairs = vectors.pairs[languages == language]
                texts = np.roll(pairs[:, 1], 1 + len(pairs) // 3)
                others = texts != pairs[:, 1]
                pictures, said = vectors.img_embedding[pairs[others, 0]], vectors.text_embedding[texts[others]]
                yield language, np.einsum("ij,ij->i", pictures, said).astype(np.float32)

    def of_languages(self, column: int) -> Iterator[tuple[str, np.ndarray]]:
        """All finite scores of a column, by language."""
        for shard in self.shards:
            rows = self.read(shard)
            scores = rows["scores"][:, column]
            for language in np.unique(rows["language"].astype(str)):
                yield language, scores[(rows["language"] == language) & np.isfinite(scores)]
