"""Published figures, to compare with those measured here."""

import functools
import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Published:
    """A row of a published table.

    Attributes:
        dataset: "Flickr30k", "COCO-CN" or "MUGE"; Flickr30k in Chinese is Flickr30k-CN.
        language: code.
        system: its name in the source.
        of: hub ids of the weights, if they are public.
        source: of the figures.
        figures: by the names of `Retrieval.as_dict`, in percent, as far as the source has them.
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
    """The published rows for a data set and language.

    Args:
        task: the name of a `RetrievalTask`: the data set or its folder, and the split.
        language: code.

    Example:
        >>> [row.system for row in published_for("Flickr30k-CN test", "zh")][:2]
        ['CLIP', 'Taiyi']
    """
    plain = task.lower().replace("flickr30k-cn", "flickr30k").replace("flickr30k_cn", "flickr30k")
    return [row for row in published() if plain.startswith(row.dataset.lower()) and row.language == language]


def published_of(system: str, task: str, language: str) -> Published | None:
    """The row that a measured system should agree with, found by hub id or by its name in the source."""
    for row in published_for(task, language):
        if system in row.of or system.lower() == row.system.lower():
            return row
    return None
