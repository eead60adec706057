"""Figures that others have published, to be shown beside what is measured here."""

import functools
import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Published:
    """A row of somebody's table.

    Attributes:
        dataset: "Flickr30k", "COCO-CN" or "MUGE"; Flickr30k in Chinese is Flickr30k-CN.
        language: code.
        system: as the source calls it.
        of: hub ids of its weights, if they are public.
        source: where the figures stand.
        figures: by the names of `Retrieval.as_dict`, in percent; what the source does not say is left out.
    """

    dataset: str
    language: str
    system: str
    of: tuple[str, ...]
    source: str
    figures: dict[str, float]


@functools.cache
def published() -> tuple[Published, ...]:
    """All rows.

    Example:
        >>> next(row for row in published() if row.system == "AltCLIP*").figures["mr"]
        90.4
    """
    data = json.loads(resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8"))
    return tuple(
        Published(
            row["dataset"],
            row["language"],
            row["system"],
            tuple(row["of"]),
            data["sources"][row["source"]],
            {k: v for k, v in zip(data["columns"], row["values"], strict=True) if v is not None},
        )
        for row in data["figures"]
    )


def published_for(task: str, language: str) -> list[Published]:
    """The rows of a data set in a language.

    Args:
        task: the name of a `RetrievalTask`: of the data set, or of its folder, and its split.
        language: code.

    Example:
        >>> [row.system for row in published_for("Flickr30k-CN test", "zh")][:2]
        ['CLIP', 'Taiyi']
    """
    plain = task.lower().replace("flickr30k-cn", "flickr30k").replace("flickr30k_cn", "flickr30k")
    return [row for row in published() if plain.startswith(row.dataset.lower()) and row.language == language]


def published_of(system: str, task: str, language: str) -> Published | None:
    """The row that a measured system should agree with: that of its hub id, or of its name in the source's table."""
    for row in published_for(task, language):
        if system in row.of or system.lower() == row.system.lower():
            return row
    return None
