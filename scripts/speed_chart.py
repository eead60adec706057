"""Draws docs/speed.png from benchmarks/RESULTS.md: the speed-up of each benchmark, and its goal.

python scripts/speed_chart.py
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROWS = {
    "`prompt_encoding.py`: batch 8, 12 tokens, float32": "prompts of 12 tokens, float32\n(diffusers' RobertaSeries)",
    "the same, 12 tokens, bfloat16": "prompts of 12 tokens, bfloat16\n(the same)",
    "the same, what is fastest here": "prompts of 12 tokens, what is fastest\n(the same in float32)",
    "`scoring.py": "scoring JPEGs\n(a loop with transformers' AltCLIP)",
    "`optimize.py`: one of 256x256": "pipe.optimize(), 256x256\n(diffusers' AltDiffusionPipeline)",
}
"""The beginnings of rows of the table, with their labels in the chart and what they are compared with."""


def main() -> None:
    lines = Path("benchmarks/RESULTS.md").read_text(encoding="utf-8").splitlines()
    figure, axes = plt.subplots(figsize=(8, 3.2), dpi=110)
    for place, start in enumerate(ROWS):
        line = next(line for line in lines if line.startswith(f"| {start}"))
        ratio, goal = (float(re.match(r"[\d.]+", cell.strip())[0]) for cell in line.split("|")[4:6])
        bar = axes.barh(place, ratio, 0.55, color="#5b5fe0")
        axes.bar_label(bar, [f"{ratio:.1f}x"], padding=3, fontsize=9)
        axes.plot([goal, goal], [place - 0.36, place + 0.36], color="#e11d48", linewidth=2)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_yticks(range(len(ROWS)), ROWS.values(), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 17.5)
    axes.set_xlabel("times as fast (red: the goal), two cores of an AMD EPYC with AVX512-BF16", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(Path("docs") / "speed.png")


if __name__ == "__main__":
    main()
