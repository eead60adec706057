"""XTD10: a thousand COCO pictures with captions in eleven languages."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.stored import find_folder
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.evaluation.datasets.text_files import lines
from altdiffusion_clip.sources.pictures import Located

SPLIT = "test"
WHERE = (
    "XTD10's texts are at github.com/adobe-research/Cross-lingual-Test-Dataset-XTD10 (XTD10/, MIC/, STAIR/), its "
    "pictures are COCO's; put test_image_names.txt, test_1kcaptions_LANGUAGE.txt and images/ into one folder"
)
_CODES = {"jp": "ja"}


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads every language that exists.

    Args:
        folder: of the data set.
        split: "test", the only one.
        languages: codes; Japanese is "ja", whatever its file is called.
        allow_missing: leave out missing images.

    Raises:
        UserError: its files do not exist, or have different lengths.
    """
    names = folder / f"{split}_image_names.txt"
    files = sorted(
        path
        for place in (folder, *(folder / n for n in ("XTD10", "MIC", "STAIR")))
        for path in place.glob(f"{split}_1kcaptions_*.txt")
    )
    if not names.is_file():
        names = folder / "XTD10" / names.name
    if not names.is_file() or not files:
        raise UserError(f"{folder} is not XTD10; {WHERE}")
    pictures = find_folder(folder, "images")
    ids = [name.strip() for name in lines(names) if name.strip()]
    captions = []
    for path in files:
        code = path.stem.rpartition("_")[2]
        said = lines(path)
        if len(said) != len(ids):
            raise UserError(f"{path} has {len(said)} lines and {names.name} {len(ids)}; they belong line by line")
        captions += [Caption(_CODES.get(code, code), text, [key]) for text, key in zip(said, ids, strict=True)]
    images = [(key, Located(str(pictures / key))) for key in ids]
    return new_task("XTD10", images, captions, languages, allow_missing, all_are_candidates=False)
