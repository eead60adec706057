"""Flickr30k with Karpathy's split in English, and Flickr30k-CN in Chinese."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.stored import find_folder
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import named_captions, read_json
from altdiffusion_clip.sources.pictures import Located

SPLIT = "test"
WHERE = (
    "Flickr30k's pictures are given out at shannon.cs.illinois.edu/DenotationGraph; put them into flickr30k-images/, "
    "with dataset_flickr30k.json (Karpathy) or flickr30k_test_karpathy.txt (CLIP_benchmark) for English and "
    "flickr30k_cn_test.txt (Flickr30k-CNA) for Chinese beside it"
)


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads the captions of the languages that are there.

    Args:
        folder: of the data set.
        split: "train", "val" or "test".
        languages: "en" and "zh", or those that are there.
        allow_missing: leave out missing images.

    Raises:
        UserError: the split has no captions.
    """
    pictures = find_folder(folder, "flickr30k-images", "flickr30k_images", "Images", "images")
    captions = [*_english(folder, split), *_chinese(folder, split)]
    if not captions:
        raise UserError(f"{folder} has no captions of Flickr30k's {split} split; {WHERE}")
    ids = dict.fromkeys(key for caption in captions for key in caption.images)
    images = [(key, Located(str(pictures / f"{key}.jpg"))) for key in ids]
    return new_task(f"Flickr30k {split}", images, captions, languages, allow_missing, all_are_candidates=False)


def _english(folder: Path, split: str) -> list[Caption]:
    karpathy = folder / "dataset_flickr30k.json"
    if karpathy.is_file():
        return [
            Caption("en", sentence["raw"], [Path(image["filename"]).stem])
            for image in read_json(karpathy)["images"]
            if image["split"] == split
            for sentence in image["sentences"]
        ]
    listed = folder / f"flickr30k_{split}_karpathy.txt"
    if listed.is_file():
        return [Caption("en", text, [name]) for name, text in named_captions(listed)]
    return []


def _chinese(folder: Path, split: str) -> list[Caption]:
    for path in (folder / f"flickr30k_cn_{split}.txt", folder / split / f"flickr30k_cn_{split}.txt"):
        if path.is_file():
            return [Caption("zh", text, [name]) for name, text in named_captions(path)]
    return []
