"""MUGE, and Flickr30k-CN and COCO-CN in Chinese-CLIP's format: texts as JSON lines, images as base64."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import json_lines
from altdiffusion_clip.sources.pictures import Located

SPLIT = "valid"
WHERE = (
    "MUGE.zip and Flickr30k-CN.zip are linked from github.com/OFA-Sys/Chinese-CLIP; unpacked, a folder has "
    "valid_texts.jsonl and valid_imgs.tsv"
)


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads texts and images. A text may belong to several images, and an image to no text.

    Args:
        folder: of the data set.
        split: "train", "valid" or "test".
        languages: one code for its texts; "zh" by default.
        allow_missing: leave out missing images.

    Raises:
        UserError: its files do not exist or are damaged.
    """
    texts, images = folder / f"{split}_texts.jsonl", folder / f"{split}_imgs.tsv"
    if not texts.is_file() or not images.is_file():
        raise UserError(f"{folder} has no {texts.name} and {images.name}; {WHERE}")
    code = languages[0] if languages else "zh"
    captions = []
    for number, row in json_lines(texts):
        if not isinstance(row.get("text"), str) or not isinstance(row.get("image_ids"), list):
            raise UserError(f"{texts}, line {number}: text and image_ids are expected")
        captions.append(Caption(code, row["text"], [str(key) for key in row["image_ids"]]))
    if captions and not any(caption.images for caption in captions):
        raise UserError(f"{texts} does not say which images belong to its texts; take the split valid")
    return new_task(f"{folder.name} {split}", _images(images), captions, languages, allow_missing)


def _images(path: Path) -> list[tuple[str, Located]]:
    """The position of each picture in a file, which may be larger than memory."""
    found = []
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            key, tab, data = line.partition(b"\t")
            if line.strip():
                if not tab:
                    raise UserError(f"{path}, line {number}: an id, a tab and a picture in base64 are expected")
                name = key.decode()
                size = len(data.rstrip(b"\r\n"))
                found.append((name, Located(str(path), size, place + len(key) + 1, is_base64=True, key=name)))
            place += len(line)
    return found
