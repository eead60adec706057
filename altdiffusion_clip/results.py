"""A folder of drawn pictures that is complete at every moment."""

import json
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from altdiffusion_clip.drawing import Settings, save_with_settings
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path, write_text
from altdiffusion_clip.gallery import best_first, write_contact_sheet, write_index
from altdiffusion_clip.prompts.weights import parse_weights

if TYPE_CHECKING:
    from altdiffusion_clip.scoring import AltCLIPScorer


logger = logging.getLogger(__name__)


class ResultsFolder:
    """A folder of drawn pictures with `results.jsonl`, `contact-sheet.png` and `index.html`.

    Every file is complete at every moment: a picture is written when it is drawn, and the list right after
    it. Pictures of earlier runs in the same folder stay, and numbering goes on from them.

    Args:
        folder: made if it is not there.
        scorer: scores the pictures, if given.
        keep: of each prompt's pictures in this run only so many stay, the best ones; all if not given.
    """

    def __init__(self, folder: Path, scorer: "AltCLIPScorer | None" = None, keep: int | None = None) -> None:
        self.folder = folder
        self.scorer = scorer
        self.keep = keep
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from error
        self._results = folder / "results.jsonl"
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
        if self.scorer is not None:
            scores = self.scorer.score(parse_weights(settings.prompt).text, image)
            if scores.broken:
                logger.warning("%s is not ranked: %s", name, scores.broken[0].reason)
            else:
                cosine = float(scores.cosine)
                row["score"] = {"cosine": round(cosine, 6), "clip_score": round(100 * max(cosine, 0.0), 4)}
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
            f"seed {row['seed']}" if row["score"] is None else f"{row['rank']}  cosine {row['score']['cosine']:.3f}"
            for row in ordered
        ]
        pictures = [(self.folder / row["file"], label) for row, label in zip(ordered, labels, strict=True)]
        write_contact_sheet(self.folder / "contact-sheet.png", pictures)
        write_index(self.folder / "index.html", ordered)

    def _rank(self, prompt: str) -> None:
        group = [row for row in self.rows if row["prompt"] == prompt and row["score"] is not None]
        for rank, row in enumerate(sorted(group, key=lambda row: -row["score"]["cosine"]), start=1):
            row["rank"] = rank

    def _write(self) -> None:
        rows = [*self._earlier, *self.rows]
        write_text(self._results, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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
