"""Formats rows as a table for the terminal."""

from collections.abc import Sequence
from typing import Any


def table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """A title and aligned columns. Numbers have one decimal.

    Example:
        >>> print(table("Figures", [{"language": "zh", "mr": 89.21}]))
        <BLANKLINE>
        Figures
        language    mr
              zh  89.2
    """
    columns = list(rows[0]) if rows else []
    cells = [[f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in (columns, *cells)]
    return "\n".join(["", title, *lines])
