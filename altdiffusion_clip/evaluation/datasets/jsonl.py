"""Captioned pictures as JSON lines, the format that training reads too."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import json_lines
from altdiffusion_clip.sources.pictures import Located

SPLIT = ""
WHERE = 'a line is {"image": "1.png", "captions": {"en": ["a cat"], "zh": ["猫"]}}, paths are from the file\'s folder'


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads a file, or the `captions.jsonl` of a folder.

    Args:
        folder: the file or folder.
        split: read `SPLIT.jsonl` in the folder instead.
        languages: codes; empty for all that exist.
        allow_missing: leave out missing images.

    Raises:
        UserError: it does not exist, or a line has another format.
    """
    path = folder if folder.is_file() else folder / f"{split or 'captions'}.jsonl"
    if not path.is_file():
        raise UserError(f"there is no {path}; {WHERE}")
    images, captions = [], []
    for number, row in json_lines(path):
        name, said = row.get("image"), row.get("captions")
        if isinstance(said, str | list):
            said = {row.get("language", "en"): said}
        if not isinstance(name, str) or not isinstance(said, dict):
            raise UserError(f"{path}, line {number}: image and captions are expected; {WHERE}")
        images.append((name, Located(str(path.parent / name))))
        for code, texts in said.items():
            captions += [Caption(code, text, [name]) for text in ([texts] if isinstance(texts, str) else texts)]
    return new_task(path.stem, images, captions, languages, allow_missing, all_are_candidates=False)
