"""The history of a visitor's drawings, kept in their browser."""

from typing import Any

FIELDS = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "seed", "width", "height", "scheduler")
"""The settings of a drawing to keep, in the order of the page's inputs."""

MOST = 30
"""How many drawings to keep."""

_LABEL = 60


def remembered(history: Any, rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Adds the latest drawing to a history, the newest first.

    Args:
        history: from the browser.
        rows: of the pictures, from `rows_of`.

    Example:
        >>> settings = {"prompt": "a cat", "seed": 3}
        >>> remembered([], [{"settings": settings}])[0]["prompt"]
        'a cat'
    """
    known = [each for each in history or [] if isinstance(each, dict) and isinstance(each.get("prompt"), str)]
    if not rows:
        return known
    # The picture with the first seed. Starting from it, all are drawn again.
    first = min((row["settings"] for row in rows), key=lambda settings: settings["seed"])
    entry = {name: first.get(name) for name in FIELDS}
    return [entry, *(each for each in known if each != entry)][:MOST]


def labels_of(history: list[dict[str, Any]]) -> list[list[str]]:
    """One line per drawing.

    Example:
        >>> labels_of([{"prompt": "a cat", "seed": 3}])
        [['a cat · 3']]
    """
    return [[f"{_short(each['prompt'])} · {each.get('seed')}"] for each in history]


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[:_LABEL]}…"
