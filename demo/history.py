"""What a visitor has drawn, kept in their own browser over a reload."""

from typing import Any

FIELDS = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "width", "height", "scheduler")
"""Settings that are kept of a drawing, in the order of the page's inputs."""

MOST = 30
"""Drawings that are kept."""

_LABEL = 60


def remembered(history: Any, rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """A history with the drawing that has just been made, the newest first.

    Args:
        history: as the browser has kept it.
        rows: of the pictures, as `rows_of` gives them.

    Example:
        >>> settings = {"prompt": "a cat", "seed": 3}
        >>> remembered([], [{"settings": settings}])[0]["prompt"]
        'a cat'
    """
    known = [each for each in history or [] if isinstance(each, dict) and isinstance(each.get("prompt"), str)]
    if not rows:
        return known
    # The picture with the first seed: drawn again from there, all of them are.
    first = min((row["settings"] for row in rows), key=lambda settings: settings["seed"])
    entry = {name: first.get(name) for name in FIELDS}
    return [entry, *(each for each in known if each != entry)][:MOST]


def labels_of(history: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each drawing.

    Example:
        >>> labels_of([{"prompt": "a cat", "seed": 3}])
        [['a cat · 3']]
    """
    return [[f"{_short(each['prompt'])} · {each.get('seed')}"] for each in history]


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[:_LABEL]}…"
