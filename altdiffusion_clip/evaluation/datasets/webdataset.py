"""webdataset tars in CLIP_benchmark's layout: SPLIT/0.tar and so on, with a picture and its captions per sample."""

from collections.abc import Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.stored import tar_samples
from altdiffusion_clip.evaluation.datasets.task import Caption, RetrievalTask, new_task
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.tars import picture_among

SPLIT = "test"
WHERE = (
    "CLIP_benchmark's sets are on the hub as clip-benchmark/wds_*; a folder has test/0.tar, test/1.tar and so on, "
    "whose samples are a picture and a .txt with a caption a line"
)


def shards(folder: Path, split: str) -> list[Path]:
    """The tars of a split, in numerical order.

    Raises:
        UserError: there are none.
    """
    found = list((folder / split).glob("*.tar")) or list(folder.glob("*.tar"))
    if not found:
        raise UserError(f"{folder} has no {split}/*.tar; {WHERE}")
    return sorted(found, key=lambda path: (len(path.stem), path.stem))


def read(folder: Path, split: str = SPLIT, languages: Sequence[str] = (), allow_missing: bool = False) -> RetrievalTask:
    """Reads pictures and captions.

    Args:
        folder: of the data set.
        split: its folder.
        languages: one code for its texts; "en" by default.
        allow_missing: leave out samples without a picture.

    Raises:
        UserError: a file is damaged, or a sample has no picture or no captions.
    """
    code = languages[0] if languages else "en"
    images, captions = [], []
    for shard in shards(folder, split):
        for sample in tar_samples(shard):
            picture, text = picture_among(sample), sample.get("txt")
            name = next(iter(sample.values())).key
            if picture is None:
                if allow_missing:
                    continue
                raise UserError(f"{shard}: the sample of {name} has no picture; skip it with --allow-missing")
            if text is None:
                raise UserError(f"{shard}: the sample of {name} has no .txt with captions")
            key = f"{shard.stem}/{picture.key}"
            images.append((key, picture))
            captions += [Caption(code, said, [key]) for said in _lines(text) if said.strip()]
    return new_task(f"{folder.name} {split}", images, captions, languages, allow_missing)


def _lines(text: Located) -> list[str]:
    try:
        return text.read().decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{text.name} is not UTF-8 text") from None
