"""What is kept of a drawing: the pictures in their order, and what they were drawn with."""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from altdiffusion_clip.demo.studio import Drawn
from altdiffusion_clip.demo.texts import Refusal
from altdiffusion_clip.drawing.png_text import settings_from, webui_text
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale
from altdiffusion_clip.errors import UserError


def best_first(drawn: Sequence[Drawn], keep: int) -> list[Drawn]:
    """The best pictures; without scores, the first."""
    ordered = sorted(drawn, key=lambda each: -(each.score if each.score is not None else -math.inf))
    return ordered[:keep]


def rows_of(drawn: Sequence[Drawn], paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What is said of each picture: rank, file, score, seed, and all its settings."""
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
    """Writes a PNG of each picture, which holds its settings."""
    paths = [folder / f"{rank:02d}-seed{each.settings.seed}.png" for rank, each in enumerate(drawn, start=1)]
    for each, path in zip(drawn, paths, strict=True):
        each.save(path)
    return paths


def write_archive(paths: Sequence[Path], rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes a zip of pictures and `results.json`."""
    archive = folder / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.name)
        file.writestr("results.json", json.dumps(list(rows), ensure_ascii=False, indent=1))
    return archive


def restored(path: Path, model: str) -> Settings:
    """The settings that a picture of this program or of a WebUI holds.

    Args:
        path: of the PNG.
        model: that is to draw.

    Raises:
        Refusal: it holds none.
    """
    try:
        return settings_from(path, model, usual_guidance_scale(model))[0]
    except UserError:
        raise Refusal("no_settings") from None
