"""A folder of drawn pictures that is complete at every moment."""

import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.drawing import Settings, save_with_settings
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path, write_text
from altdiffusion_clip.gallery import best_first, shown_score, write_contact_sheet, write_index
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.scores import NOT_A_NUMBER, named_scores

if TYPE_CHECKING:
    from altdiffusion_clip.judges.encoding import Bench
    from altdiffusion_clip.judges.ensembles import Panel

logger = logging.getLogger(__name__)


class ResultsFolder:
    """A folder of drawn pictures with `results.jsonl`, `contact-sheet.png` and `index.html`.

    Every file is complete at every moment: a picture is written when it is drawn, and the list right after
    it. Pictures of earlier runs in the same folder stay, and numbering goes on from them.

    Args:
        folder: made if it is not there.
        panel: judges the pictures, if given; the first judge ranks them.
        keep: of each prompt's pictures in this run only so many stay, the best ones; all if not given.
    """

    def __init__(self, folder: Path, panel: "Panel | None" = None, keep: int | None = None) -> None:
        self.folder = folder
        self.panel = panel
        self.keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from error
        self._results = folder / "results.jsonl"
        self._bench = None if panel is None else _bench_of(panel)
        self._scores: dict[str, Tensor] = {}  # of each member of the panel, by file
        self._earlier = read_results(folder)
        self.rows: list[dict[str, Any]] = []
        numbers = [int(found[1]) for p in folder.glob("*.png") if (found := re.match(r"(\d+)-seed", p.name))]
        self._next = max(numbers, default=-1) + 1

    def add(self, image: Image.Image, settings: Settings) -> dict[str, Any]:
        """Writes a picture and its row, and ranks it among those of the same prompt in this run."""
        name = f"{self._next:03d}-seed{settings.seed}.png"
        self._next += 1
        with atomic_path(self.folder / name) as path:
            save_with_settings(image, settings, path)
        row = {
            "prompt": settings.prompt,
            "seed": settings.seed,
            "file": name,
            "score": None,
            "rank": None,
            "model": settings.model,
            "settings": asdict(settings),
        }
        if self._bench is not None:
            from altdiffusion_clip.judges.judging import score_drawn

            scores = score_drawn(parse_weights(settings.prompt).text, [image], self._bench)[:, 0]
            if bool(scores.isfinite().all()):
                self._scores[name] = scores
            else:
                logger.warning("%s is not ranked: %s", name, NOT_A_NUMBER)
        self.rows.append(row)
        self._rank(settings.prompt)
        dropped = [r for r in self.rows if self.keep and r["prompt"] == row["prompt"] and (r["rank"] or 0) > self.keep]
        self.rows = [r for r in self.rows if r not in dropped]
        self._write()
        for each in dropped:  # after the list no longer names it
            (self.folder / each["file"]).unlink(missing_ok=True)
        return row

    def finish(self) -> None:
        """Writes the contact sheet and the page, best first."""
        rows = [*self._earlier, *self.rows]
        ordered = best_first([row for row in rows if (self.folder / row["file"]).is_file()])
        if not ordered:
            return
        labels = [
            f"seed {row['seed']}" if row["score"] is None else f"{row['rank']}  {shown_score(row['score'])}"
            for row in ordered
        ]
        pictures = [(self.folder / row["file"], label) for row, label in zip(ordered, labels, strict=True)]
        write_contact_sheet(self.folder / "contact-sheet.png", pictures)
        write_index(self.folder / "index.html", ordered)

    def _rank(self, prompt: str) -> None:
        group = [row for row in self.rows if row["prompt"] == prompt and row["file"] in self._scores]
        if self.panel is None or not group:
            return
        first, *others = self.panel.columns
        # All of them each time, for some rules compare the pictures of a prompt.
        scores = self.panel.combine(torch.stack([self._scores[row["file"]] for row in group], 1)).T.tolist()
        for row, values in zip(group, scores, strict=True):
            more = {column.name: value for column, value in zip(others, values[1:], strict=True)}
            row["score"] = named_scores(values[0], first.measure, others=more)
        order = sorted(zip(group, scores, strict=True), key=lambda each: -each[1][0])
        for rank, (row, _) in enumerate(order, start=1):
            row["rank"] = rank

    def _write(self) -> None:
        rows = [*self._earlier, *self.rows]
        write_text(self._results, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _bench_of(panel: "Panel") -> "Bench":
    from altdiffusion_clip.judges.encoding import Bench

    return Bench(panel)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's `results.jsonl`; none if it is not there.

    Raises:
        UserError: it is not a list of results.
    """
    path = folder / "results.jsonl"
    if not path.is_file():
        return []
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(row.keys() >= {"prompt", "seed", "file", "score", "rank", "model"} for row in rows):
            raise ValueError("a row lacks a field")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a list of results; choose another folder") from error
    return rows
