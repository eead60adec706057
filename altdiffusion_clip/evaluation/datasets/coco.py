"""COCO captions with Karpathy's split, and COCO-CN with its own split."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.stored import find_folder
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import lines, named_captions, read_json
from altdiffusion_clip.sources.pictures import Located

SPLIT = "test"
WHERE = (
    "COCO's pictures are at cocodataset.org; put val2014/ and train2014/ into the folder, with dataset_coco.json "
    "(Karpathy) or coco_test_karpathy.json (CLIP_benchmark) beside them"
)
WHERE_CN = (
    "COCO-CN is given out at github.com/li-xirong/coco-cn; put coco-cn_test.txt and "
    "imageid.human-written-caption.txt beside COCO's val2014/ and train2014/"
)
CAPTIONS_OF_AN_IMAGE = 5
"""Captions per image. Some images have a sixth, but CLIP and CLIP_benchmark use five."""


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads COCO in English.

    Args:
        folder: of the data set.
        split: "train", "val" or "test", of Karpathy's.
        languages: "en".
        allow_missing: leave out missing images.

    Raises:
        UserError: the split has no captions.
    """
    karpathy, annotations = folder / "dataset_coco.json", folder / f"coco_{split}_karpathy.json"
    images: list[tuple[str, Located]] = []
    captions: list[Caption] = []
    if karpathy.is_file():
        for row in read_json(karpathy)["images"]:
            if row["split"] == split or (split == "train" and row["split"] == "restval"):
                key = Path(row["filename"]).stem
                images.append((key, Located(str(folder / row.get("filepath", "") / row["filename"]))))
                captions += [Caption("en", s["raw"], [key]) for s in row["sentences"][:CAPTIONS_OF_AN_IMAGE]]
    elif annotations.is_file():
        content = read_json(annotations)
        names = {row["id"]: Path(row["file_name"]) for row in content["images"]}
        images = [(name.stem, Located(str(_picture(folder, name.stem)))) for name in names.values()]
        said: dict[int, int] = {}
        for row in content["annotations"]:
            said[row["image_id"]] = said.get(row["image_id"], 0) + 1
            if said[row["image_id"]] <= CAPTIONS_OF_AN_IMAGE:
                captions.append(Caption("en", row["caption"], [names[row["image_id"]].stem]))
    else:
        raise UserError(f"{folder} has no captions of COCO's {split} split; {WHERE}")
    return new_task(f"COCO {split}", images, captions, languages, allow_missing)


def read_cn(
    folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False
) -> RetrievalTask:
    """Reads COCO-CN: COCO pictures with Chinese captions written by people.

    Args:
        folder: of the data set.
        split: "train", "val" or "test", of COCO-CN's.
        languages: "zh".
        allow_missing: leave out missing images.

    Raises:
        UserError: its files do not exist.
    """
    texts = find_folder(folder, "coco-cn-version1805v1.1")
    members, written = texts / f"coco-cn_{split}.txt", texts / "imageid.human-written-caption.txt"
    if not members.is_file() or not written.is_file():
        raise UserError(f"{folder} has no captions of COCO-CN's {split} split; {WHERE_CN}")
    ids = [line.strip() for line in lines(members) if line.strip()]
    wanted = set(ids)
    captions = [Caption("zh", text, [name]) for name, text in named_captions(written) if name in wanted]
    images = [(key, Located(str(_picture(folder, key)))) for key in ids]
    return new_task(f"COCO-CN {split}", images, captions, languages, allow_missing)


def _picture(folder: Path, stem: str) -> Path:
    """The path of a picture. Its name contains the folder: COCO_val2014_000000000001."""
    part = stem.split("_")[1] if stem.count("_") == 2 else "images"
    return folder / part / f"{stem}.jpg"
