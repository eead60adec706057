"""Plots and thumbnails, embedded so that a page stays one file."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from altdiffusion_clip.errors import UserError

_SIDE = 160


def thumbnail(image: Image.Image) -> str:
    """A thumbnail of at most 160 pixels, as the `src` of an <img>."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def heat_map(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], what: str) -> str:
    """A heat map with its numbers, from 0 to 100, as an <img>.

    Raises:
        UserError: matplotlib is not installed.
    """
    figure, axes = _figure(1.2 + 0.8 * len(columns), 1.0 + 0.45 * len(rows))
    axes.imshow(values, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(what, fontsize=10)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color="white" if value < 60 else "black")
    return _img(figure, what)


def bars(
    values: Sequence[Sequence[float]],
    intervals: Sequence[Sequence[tuple[float, float]]],
    rows: Sequence[str],
    columns: Sequence[str],
    what: str,
) -> str:
    """Bars with intervals, one group per column, as an <img>.

    Raises:
        UserError: matplotlib is not installed.
    """
    figure, axes = _figure(max(4.0, 0.4 * len(rows) * len(columns) + 1.5), 3.2)
    width = 0.8 / len(rows)
    for number, (row, ends, name) in enumerate(zip(values, intervals, rows, strict=True)):
        places = [column + (number - (len(rows) - 1) / 2) * width for column in range(len(columns))]
        errors = [
            [max(0.0, value - low) for value, (low, _) in zip(row, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(row, ends, strict=True)],
        ]
        axes.bar(places, row, width, yerr=errors, capsize=2, label=name)
    axes.set_xticks(range(len(columns)), columns)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel(what)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=len(rows), frameon=False)
    return _img(figure, what)


def histograms(
    edges: Sequence[float],
    counts: Mapping[str, Sequence[float]],
    lines: Mapping[str, float],
    what: str,
) -> str:
    """Outlines of histograms, each relative to its own number of rows, as an <img>.

    Args:
        edges: of the bins.
        counts: rows per bin, by name.
        lines: vertical lines, by the same names.
        what: label of the axis.

    Raises:
        UserError: matplotlib is not installed.
    """
    figure, axes = _figure(8.0, 3.4)
    for name, values in counts.items():
        total = max(1.0, float(sum(values)))
        drawn = axes.stairs([100 * value / total for value in values], edges, label=name or "all")
        if name in lines:
            axes.axvline(lines[name], color=drawn.get_edgecolor(), linestyle="--", linewidth=1)
    axes.set_xlabel(what)
    axes.set_ylabel("% of the rows")
    axes.legend(fontsize=8, ncol=6, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return _img(figure, what)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        # without pyplot, so there is no global state and no window system
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError('a page needs matplotlib; pip install "altdiffusion-clip[report]"') from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _img(figure: Any, what: str) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130)
    source = base64.b64encode(data.getvalue()).decode()
    return f'<img class="plot" alt="{what}" src="data:image/png;base64,{source}">'
