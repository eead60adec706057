"""Draws docs/retrieval.png: R@1 of emoji-m18 and its English teacher by language, among similar scenes.

altdiffusion evaluate emoji --json | python scripts/retrieval_chart.py
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from altdiffusion_clip.emoji.languages import LANGUAGES

SYSTEMS = {"teacher": ("English teacher", "#c2c8d0"), "student": ("emoji-m18", "#5b5fe0")}


def main() -> None:
    rows = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    rows = [row for row in rows if row["typed"] == "as taught"]
    figure, axes = plt.subplots(figsize=(10, 2.6), dpi=110)
    width = 0.4
    for place, (system, (name, colour)) in enumerate(SYSTEMS.items()):
        found = {row["language"]: row["text_to_image_r1"] for row in rows if row["system"] == system}
        left = [number + (place - 0.5) * width for number in range(len(LANGUAGES))]
        bars = axes.bar(left, [found[code] for code in LANGUAGES], width, label=name, color=colour)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(range(len(LANGUAGES)), LANGUAGES)
    axes.set_ylabel("R@1, text to image, %")
    axes.set_ylim(0, 110)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=2, frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(Path("docs") / "retrieval.png")


if __name__ == "__main__":
    main()
