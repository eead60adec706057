"""The results of a drawing: ordered pictures and their settings."""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from altdiffusion_clip.demo.studio import Drawn
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.png_text import settings_from, settings_from_text, webui_text
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale
from altdiffusion_clip.errors import UserError

TEXT, LONGEST_TEXT = ".txt", 100_000
"""The ending of texts of settings, and their most bytes."""


def best_first(drawn: Sequence[Drawn], keep: int) -> list[Drawn]:
    """The best pictures, or the first ones if there are no scores."""
    ordered = sorted(drawn, key=lambda each: -(each.score if each.score is not None else -math.inf))
    return ordered[:keep]


def rows_of(drawn: Sequence[Drawn], paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A row per picture: rank, file, score, seed, and all settings."""
    return [
        {
            "rank": rank,
            "file": path.name,
            each.measure: None if each.score is None else round(each.score, 6),
            **({"judges": each.judges} if each.judges else {}),
            "seed": each.settings.seed,
            "prompt": each.settings.prompt,
            "settings": asdict(each.settings),
            "parameters": webui_text(each.settings, each.image.size),
        }
        for rank, (each, path) in enumerate(zip(drawn, paths, strict=True), start=1)
    ]


def write_pictures(drawn: Sequence[Drawn], folder: Path) -> list[Path]:
    """Writes each picture as a PNG with its settings."""
    paths = [folder / f"{rank:02d}-seed{each.settings.seed}.png" for rank, each in enumerate(drawn, start=1)]
    for each, path in zip(drawn, paths, strict=True):
        each.save(path)
    return paths


def write_archive(paths: Sequence[Path], rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes a zip of the pictures and `results.json`."""
    archive = folder / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.name)
        file.writestr("results.json", json.dumps(list(rows), ensure_ascii=False, indent=1))
    return archive


def restored(path: Path, model: str) -> Settings:
    """Reads the settings in a picture or a text from this program or a WebUI.

    Args:
        path: of the PNG, or of the text, whose name ends in `TEXT`.
        model: to draw with.

    Raises:
        Refusal: it has no settings.
    """
    guidance_scale = usual_guidance_scale(model)
    try:
        if path.suffix == TEXT:
            return settings_from_text(read_text(path), model, guidance_scale)[0]
        return settings_from(path, model, guidance_scale)[0]
    except UserError:
        raise Refusal("no_settings") from None


def read_text(path: Path) -> str:
    """Reads a text of settings.

    Raises:
        UserError: it is not UTF-8, or so long that it is something else.
    """
    try:
        if path.stat().st_size <= LONGEST_TEXT:
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        pass
    raise UserError("not a text of settings")
