"""The data sets that can be read by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets import coco, crossmodal, emoji, flickr30k, jsonl, muge, webdataset, xtd
from altdiffusion_clip.evaluation.datasets.task import RetrievalTask

_READERS: dict[str, tuple[Callable[..., RetrievalTask], str, str]] = {
    "flickr30k": (flickr30k.read, flickr30k.SPLIT, flickr30k.WHERE),
    "coco": (coco.read, coco.SPLIT, coco.WHERE),
    "coco-cn": (coco.read_cn, coco.SPLIT, coco.WHERE_CN),
    "muge": (muge.read, muge.SPLIT, muge.WHERE),
    "xtd10": (xtd.read, xtd.SPLIT, xtd.WHERE),
    "crossmodal-3600": (crossmodal.read, crossmodal.SPLIT, crossmodal.WHERE),
    "webdataset": (webdataset.read, webdataset.SPLIT, webdataset.WHERE),
    "jsonl": (jsonl.read, jsonl.SPLIT, jsonl.WHERE),
}
EMOJI = "emoji"
"""The data set in the package, which needs no folder."""

NAMES = (EMOJI, *_READERS)


def read_dataset(
    name: str, folder: Path | None = None, split: str = "", languages: Sequence[str] = (), allow_missing: bool = False
) -> RetrievalTask:
    """Reads a retrieval data set.

    Args:
        name: one of `NAMES`; it decides the layout of the folder.
        folder: of the data set; not needed for "emoji".
        split: empty for its default.
        languages: codes; empty for all that exist.
        allow_missing: leave out missing images.

    Raises:
        UserError: it cannot be read. If it does not exist, the message says where to get it.
    """
    if name == EMOJI:
        return emoji.read(None, languages=languages, allow_missing=allow_missing)
    if name not in _READERS:
        raise UserError(f"no data set {name!r}; there are {', '.join(NAMES)}")
    read, default, where = _READERS[name]
    if folder is None:
        raise UserError(f"{name} is not in the package; say where its folder is: {where}")
    if not folder.exists():
        raise UserError(f"there is no {folder}; {where}")
    return read(folder, split or default, languages, allow_missing)
