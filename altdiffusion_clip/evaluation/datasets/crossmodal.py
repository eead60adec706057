"""Crossmodal-3600: pictures from all over the world with captions in 36 languages."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.stored import find_folder
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import json_lines
from altdiffusion_clip.sources.pictures import Located

SPLIT = "test"
WHERE = (
    "Crossmodal-3600 is at google.github.io/crossmodal-3600; unpack captions.zip to captions.jsonl and images.tgz to "
    "images/ in one folder"
)


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads all captions of all languages. (CLIP_benchmark takes the first caption of each picture only.)

    Args:
        folder: of the data set.
        split: "test", the only one.
        languages: codes.
        allow_missing: leave out missing images.

    Raises:
        UserError: its files do not exist.
    """
    del split
    path = folder / "captions.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} has no captions.jsonl; {WHERE}")
    pictures = find_folder(folder, "images")
    images, captions = [], []
    for number, row in json_lines(path):
        key = row.get("image/key")
        if not isinstance(key, str):
            raise UserError(f"{path}, line {number}: no image/key; {WHERE}")
        images.append((key, Located(str(pictures / f"{key}.jpg"))))
        for code, said in row.items():
            if isinstance(said, dict) and "caption" in said:
                captions += [Caption(code, text, [key]) for text in said["caption"]]
    return new_task("Crossmodal-3600", images, captions, languages, allow_missing, all_are_candidates=False)
