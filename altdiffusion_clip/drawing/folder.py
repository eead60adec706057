"""A folder of drawn pictures that is consistent at every moment, and can be continued after a stop."""

import io
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from altdiffusion_clip.drawing.gallery import INDEX, THUMBNAIL, THUMBNAILS, write_pages
from altdiffusion_clip.drawing.knowledge import unknown_of
from altdiffusion_clip.drawing.log import RESULTS_FILE, SHARD_FILES, Log, Row, group_of, name_of, shard_file
from altdiffusion_clip.drawing.packing import Packing, is_packed, pack_of
from altdiffusion_clip.drawing.png_text import encode_with_settings
from altdiffusion_clip.drawing.tally import Tally
from altdiffusion_clip.drawing.tasks import Task
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import lock_of, remove_leftovers, write_bytes
from altdiffusion_clip.images import load_image
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.scores import NOT_A_NUMBER, named_scores
from altdiffusion_clip.sources.places import is_remote

if TYPE_CHECKING:
    from altdiffusion_clip.judges.encoding import Bench
    from altdiffusion_clip.judges.ensembles import Panel

logger = logging.getLogger(__name__)
LOCK = "_lock"
MOST_IN_A_FOLDER = 10_000
Encoded = list[tuple[Row, dict[str, bytes]]]
"""The rows of a batch, each with its files."""


class OutputFolder:
    """Pictures, `results.jsonl` with one row per picture, contact sheets and pages.

    A picture is written completely before its row. Ranks are written once all pictures of a group exist.

    Several runs can share a folder if each has its own `shard`. Each writes its rows to its own file, until a run
    without a shard merges them and writes the pages.

    Args:
        folder: created if it does not exist.
        panel: the judges; the first one ranks the pictures. None for no judging.
        keep: keep only so many pictures of each group, the best ones; all by default.
        overwrite: draw existing pictures again.
        shard: the number of this run and of all runs, from (1, N) to (N, N).
        packing: move pictures of finished groups into a few large files.

    Raises:
        UserError: the folder cannot be written, or has other contents.
    """

    def __init__(
        self,
        folder: Path,
        panel: "Panel | None" = None,
        keep: int | None = None,
        overwrite: bool = False,
        shard: tuple[int, int] | None = None,
        packing: Packing | None = None,
    ) -> None:
        self.folder, self.panel, self.keep = folder, panel, keep
        self._shard, self._packing = shard, packing
        self._packable: list[str] = []  # names
        self._overwrites = overwrite
        with self._one_line():
            folder.mkdir(parents=True, exist_ok=True)
        self.log = Log(folder / (RESULTS_FILE if shard is None else shard_file(*shard)))
        packed = (row["file"] for row in self.log if packing and row["file"] and is_packed(row["file"]))
        self._next_pack = max((pack_of(file)[1] + 1 for file in packed), default=0)
        # the merged rows of earlier runs
        self._earlier = Log(folder / RESULTS_FILE) if shard else None
        self._bench = None if panel is None else _bench_of(panel)
        self._left = Tally()
        self._unranked: set[str] = set()
        self._lock = threading.RLock()  # the next tasks are looked up while a batch is being saved
        self._has_new = False
        self._overwritten: set[str] = set()
        self._files: dict[str, str] = {}
        self._ordinal = 0
        self.planned = self.done = 0
        """The number of planned pictures, and how many of them exist or have failed."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this run.

        Raises:
            UserError: another run is using it.
        """
        taken = (
            f"another run is drawing into {self.folder}; wait for its end, stop it, or share the folder by --shard 1/2 "
            "and --shard 2/2"
        )
        with ExitStack() as locks:
            # Other shards hold the first lock for a moment.
            whole = lock_of(self.folder / LOCK, taken, timeout=2 if self._shard else 0)
            locks.callback(whole.release)
            if self._shard is None:
                for path in sorted(self.folder.glob(f"{LOCK}-*-of-*")):
                    locks.callback(lock_of(path, taken).release)
                remove_leftovers(self.folder)
                self._take_shards()
            else:
                locks.callback(lock_of(self.folder / f"{LOCK}-{self._shard[0]}-of-{self._shard[1]}", taken).release)
                whole.release()
            yield

    def _take_shards(self) -> None:
        """Merges the rows of runs that shared the folder."""
        with self._one_line():
            for path in sorted(self.folder.glob(SHARD_FILES)):
                rows = [row for row in Log(path) if (self.log.get(name_of(row)) or {"error": True}).get("error")]
                self.log.append(rows)
                self._unranked.update(group_of(row) for row in rows)
                path.unlink()

    def numbers(self) -> dict[str, list[str]]:
        """The ids that were given to rows without one, by prompt."""
        return dict(self.log.numbers if self._earlier is None else self._earlier.numbers)

    def plan(self, tasks: Iterable[Task]) -> None:
        """Counts the planned pictures, so that groups can be ranked when they are complete."""
        for task in tasks:
            self._left.add(task.group)
            self.planned += 1

    def is_done(self, task: Task) -> bool:
        """Whether a picture exists with the same settings.

        Raises:
            UserError: it exists with other settings.
        """
        with self._lock:
            row = self._row_of(task.name)
            before, place = row["file"] if row is not None else None, self._place(task)
            self._files[task.name] = place if not before or is_packed(before) else str(before)
        if row is None or row.get("error") or (self._overwrites and task.name not in self._overwritten):
            return False
        differs = "" if task.error else task.settings.difference(row.get("settings", {}))
        if differs:
            raise UserError(
                f"{self.folder} has {task.name} with other settings: {differs}; add --overwrite to draw it again, or "
                "choose another --output"
            )
        if row["file"] is None:
            return self.keep is not None
        if not self._is_there(row["file"]):
            return False
        if self.panel is not None and row.get("judge") != self._judge:
            self._unranked.add(task.group)  # another judge's scores
        return True

    def _is_there(self, file: str) -> bool:
        if is_packed(file):
            pack, _ = pack_of(file)
            return is_remote(pack) or (self.folder / pack).is_file()
        return (self.folder / file).is_file()

    def pass_over(self, task: Task) -> None:
        """Notes that a planned picture already exists."""
        with self._lock:
            self._left.add(task.group, -1)
            self.done += 1
            self._files.pop(task.name, None)

    def add(self, drawn: Sequence[tuple[Task, Image.Image | str]]) -> list[Row]:
        """Writes the pictures of a batch, then their rows.

        Args:
            drawn: the tasks with their pictures, or with one line that says why there is none.

        Returns:
            The rows that are new or have changed.

        Raises:
            UserError: they cannot be written. Rows never name pictures that do not exist.
        """
        return self.write(self.encode(drawn))

    def encode(self, drawn: Sequence[tuple[Task, Image.Image | str]]) -> Encoded:
        """The half of `add` that computes: it encodes and scores pictures."""
        encoded: Encoded = []
        pictures: list[tuple[Row, Image.Image]] = []
        for task, image in drawn:
            row, files = self._row(task), {}
            if isinstance(image, str):
                row["error"] = image
            else:
                row["file"] = self._files.pop(task.name, "") or f"{task.name}.png"
                files = {row["file"]: encode_with_settings(image, task.settings), **self._thumbnail(image, row["file"])}
                pictures.append((row, image))
            encoded.append((row, files))
        self._score(pictures)
        return encoded

    def write(self, encoded: Encoded) -> list[Row]:
        """The half of `add` that waits for the disk.

        Raises:
            UserError: they cannot be written.
        """
        with self._one_line():
            for _, files in encoded:
                for file, data in files.items():
                    write_bytes(self.folder / file, data)
        rows = {name_of(row): row for row, _ in encoded}
        groups = [group_of(row) for row in rows.values()]
        with self._lock:
            self._has_new = True
            if self._overwrites:
                self._overwritten.update(rows)
            self._unranked.update(groups)
            for group in groups:
                self._left.add(group, -1)
            self.done += len(encoded)
            self._write(rows, sorted(group for group in set(groups) if self._left[group] <= 0))
            self._pack()
        return list(rows.values())

    def finish(self) -> None:
        """Ranks unfinished groups, and writes the contact sheets and pages, best first."""
        with self._one_line():
            is_new = self._has_new or self._unranked or not (self.folder / INDEX).is_file()
            for group in sorted(self._unranked):
                self._write({}, [group])
            if self._packing is not None:
                self._packable = [name_of(row) for row in self.log if row["file"] and not is_packed(row["file"])]
                self._pack(everything=True)
            self.log.sync()
            self.log.compact(self._left)
            if is_new and len(self.log) and self._shard is None:
                write_pages(self.folder, self._groups())

    def _row_of(self, name: str) -> Row | None:
        return self.log.get(name) or (self._earlier.get(name) if self._earlier is not None else None)

    def rows(self) -> Iterator[Row]:
        """All rows, group by group, the best of each first."""
        for group in self._groups():
            yield from group

    def _groups(self) -> Iterator[list[Row]]:
        for group in self.log.groups():
            yield sorted(self.log.group(group), key=lambda row: row["rank"] or 0)

    def _write(self, rows: dict[str, Row], groups: Sequence[str]) -> None:
        """Ranks groups, writes rows, then removes the pictures that are not kept."""
        dropped: list[str] = []
        for group in groups:
            dropped += self._rank(group, rows, keeps_all=self._left[group] > 0)
            self._unranked.discard(group)
        with self._one_line():
            self.log.append(rows.values())
        if self._packing is not None:
            finished = [group for group in groups if self._left[group] <= 0]
            self._packable += [
                name_of(row)
                for group in finished
                for row in self.log.group(group)
                if row["file"] and not is_packed(row["file"])
            ]
        if dropped:
            self.log.sync()
        for file in dropped:
            (self.folder / file).unlink(missing_ok=True)
            (self.folder / _thumbnail_of(file)).unlink(missing_ok=True)

    def _pack(self, everything: bool = False) -> None:
        """Packs the pictures of finished groups if they fill a file, or all of them."""
        if self._packing is None:
            return
        while self._packable and (everything or len(self._packable) >= self._packing.pictures):
            names = self._packable[: self._packing.pictures]
            rows = [row for row in self.log.rows(names) if (self.folder / (row["file"] or "")).is_file()]
            del self._packable[: len(names)]
            if not rows:
                continue
            place = self._packing.name(self._next_pack, self._shard)
            self._packing.write(place, self.folder, rows)
            files = [str(row["file"]) for row in rows]
            inside = os.path.relpath(place, self.folder) if not is_remote(place) else place
            self.log.append(
                {**row, "file": f"{inside}:{name_of(row)}.png", "thumbnail": _thumbnail_of(row["file"])} for row in rows
            )
            self._next_pack += 1
            self.log.sync()
            for file in files:  # only after the rows name their new place
                (self.folder / file).unlink()

    def _row(self, task: Task) -> Row:
        settings = task.settings
        unknown = unknown_of(settings.model, settings.prompt) if settings.prompt.strip() else None
        return {
            "prompt": settings.prompt,
            "seed": settings.seed,
            "file": None,
            "score": None,
            "rank": None,
            "model": settings.model,
            "error": task.error or None,
            "name": task.name,
            "group": task.group,
            "id": task.group.removesuffix(f"-{task.language}") if task.language else task.group,
            "language": task.language or None,
            **({"columns": dict(task.own)} if task.own else {}),
            **({"warning": str(unknown)} if unknown else {}),
            "settings": dict(vars(settings)),
        }

    def _place(self, task: Task) -> str:
        """The path of a new picture, which follows from its position in the plan."""
        number, self._ordinal = self._ordinal, self._ordinal + 1
        if self.planned <= MOST_IN_A_FOLDER:
            return f"{task.name}.png"
        shards = self._shard[1] if self._shard else 1
        return f"{number // (MOST_IN_A_FOLDER // shards):04d}/{task.name}.png"

    def _thumbnail(self, image: Image.Image, file: str) -> dict[str, bytes]:
        if max(image.size) <= THUMBNAIL and self._packing is None:
            return {}
        small, encoded = image.copy(), io.BytesIO()
        small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        small.save(encoded, "WEBP", quality=85)
        return {_thumbnail_of(file): encoded.getvalue()}

    def _score(self, pictures: Sequence[tuple[Row, Image.Image]]) -> None:
        """Writes scores into rows."""
        if self._bench is None or self.panel is None or not pictures:
            return
        from altdiffusion_clip.judges.judging import score_drawn

        texts = [parse_weights(row["prompt"]).text for row, _ in pictures]
        members = score_drawn(texts, [image for _, image in pictures], self._bench)
        for (row, _), scores in zip(pictures, members.T, strict=True):
            if not bool(scores.isfinite().all()):
                logger.warning("%s is not ranked: %s", row["file"], NOT_A_NUMBER)
                continue
            row["judge"] = self._judge
            if not self.panel.is_by_row:
                row["members"] = scores.tolist()
            self._note_scores([row], scores[:, None])

    def _note_scores(self, rows: Sequence[Row], members: torch.Tensor) -> None:
        assert self.panel is not None
        first, *others = self.panel.columns
        for row, values in zip(rows, self.panel.combine(members).T.tolist(), strict=True):
            more = {column.name: value for column, value in zip(others, values[1:], strict=True)}
            row["score"] = named_scores(values[0], first.measure, others=more)

    def _rank(self, group: str, rows: dict[str, Row], keeps_all: bool) -> list[str]:
        """Ranks a group, adds changed rows, and returns the files that are not kept."""
        if self.panel is None:
            return []
        earlier = (row for row in self.log.group(group) if name_of(row) not in rows)
        mine = [row for row in (*earlier, *rows.values()) if group_of(row) == group and not row.get("error")]
        before = [json.dumps(row) for row in mine]
        for row in mine:
            path = self.folder / (row["file"] or "")
            if row.get("judge") != self._judge and path.is_file():
                self._score([(row, load_image(path))])
        scored = [row for row in mine if row["score"] is not None and row.get("judge") == self._judge]
        if scored and not self.panel.is_by_row:
            # These judges compare the pictures of a group.
            self._note_scores(scored, torch.tensor([row["members"] for row in scored]).T)
        dropped = []
        for rank, row in enumerate(sorted(scored, key=lambda row: -_first(row)), start=1):
            row["rank"] = rank
            if self.keep and not keeps_all and rank > self.keep and row["file"]:
                dropped.append(str(row["file"]))
                row["file"] = None
        rows.update({name_of(row): row for row, was in zip(mine, before, strict=True) if json.dumps(row) != was})
        return dropped

    @property
    def _judge(self) -> str:
        assert self.panel is not None
        return ", ".join(column.name for column in self.panel.columns)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error


def _thumbnail_of(file: str) -> str:
    return str(Path(THUMBNAILS, file).with_suffix(".webp"))


def _first(row: Row) -> float:
    score = row["score"]
    return float(score["cosine"] if "cosine" in score else score["score"])


def _bench_of(panel: "Panel") -> "Bench":
    from altdiffusion_clip.judges.encoding import Bench

    return Bench(panel)
