"""`altdiffusion generate` with a table: overhead over the bare pipeline call, memory, and recovery from kills.

    python benchmarks/grids.py [--rows 50000] [--kills 20]

The overhead is measured with emoji-m18 and one step. The bare loop calls the same pipeline and keeps nothing. The long
runs use a tiny, random UNet. A table of prompts is drawn into a folder, first a tenth of its rows, then all. Then a
third of the rows are drawn by a run that is killed at random moments, and compared byte for byte with a whole run.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from report import report, report_at_most

from altdiffusion_clip import AltDiffusionPipeline, generate

WINDOW = 20


def tiny_model(folder: Path) -> Path:
    """emoji-m18 with a UNet of the smallest size."""
    from diffusers import UNet2DConditionModel

    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    torch.manual_seed(0)
    like = pipeline.unet.config
    pipeline.unet = UNet2DConditionModel(
        sample_size=like.sample_size,
        in_channels=like.in_channels,
        out_channels=like.out_channels,
        cross_attention_dim=like.cross_attention_dim,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
    )
    pipeline.save_pretrained(folder)
    return folder


def prompts_of(rows: int) -> Iterator[dict[str, Any]]:
    return ({"id": f"{row:06d}", "prompt": f"a cat, number {row % 500}", "seed": row} for row in range(rows))


def write_table(folder: Path, rows: int) -> Path:
    path = folder / f"{rows}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in prompts_of(rows)))
    return path


def draw(model: str, folder: str, table: str) -> None:
    """Runs in its own process, to measure its peak memory."""
    pipeline = AltDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    started = time.perf_counter()
    for row in generate(Path(table), pipeline, folder, num_inference_steps=1, guidance_scale=1.0, name="tiny"):
        assert row["file"], row["error"]
        drawn = time.perf_counter()
    seconds, pages = time.perf_counter() - started, time.perf_counter() - drawn
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "pages": pages, "peak": peak / 1024}))


def overhead(folder: Path, rows: int = 1000) -> tuple[float, float]:
    """Milliseconds per picture, for the bare pipeline and ours, in turns: a median, and the median difference.

    The difference is that of windows of `WINDOW` turns, because our rows come when their files are safe, while the next
    pictures are drawn.
    """
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipeline.set_progress_bar_config(disable=True)
    settings: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0}
    theirs, more = [], []
    drawn = generate(write_table(folder, rows), pipeline, folder / "turns", name="emoji-m18", **settings)
    for row in prompts_of(rows):
        started = time.perf_counter()
        # Different words, because a pipeline caches encoded prompts.
        pipeline(f"a dog, {row['id']}", generator=torch.Generator().manual_seed(row["seed"]), **settings)
        between = time.perf_counter()
        next(drawn)
        theirs.append(1000 * (between - started))
        more.append(1000 * (time.perf_counter() - between) - theirs[-1])
    usual = statistics.median(theirs[50:])  # the first warm up
    windows = [statistics.mean(more[start : start + WINDOW]) for start in range(50, rows - WINDOW, WINDOW)]
    return usual, usual + statistics.median(windows)


def start(model: Path, folder: Path, rows: int) -> "subprocess.Popen[str]":
    table = write_table(folder.parent, rows)
    command = [sys.executable, __file__, "--draw", str(model), str(folder), str(table)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]") -> dict[str, float]:
    out, _ = process.communicate()
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--draw", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        draw(*options.draw)
        return
    with tempfile.TemporaryDirectory() as place:
        model = tiny_model(Path(place) / "model")
        theirs, ours = overhead(Path(place))
        report_at_most("a picture drawn, saved and noted, over the bare call", ours, theirs, "ms", 1.05)
        few, all_rows = (
            finished(start(model, Path(place) / str(rows), rows)) for rows in (options.rows // 10, options.rows)
        )
        each = [few["seconds"] / (options.rows // 10), all_rows["seconds"] / options.rows]
        report_at_most(f"memory of {options.rows} pictures over a tenth", all_rows["peak"], few["peak"], "MB", 1.05)
        report_at_most(
            f"time a picture, {options.rows} over a tenth", 1000 * each[1], 1000 * each[0], "ms", 1.1,
            pages=round(1000 * all_rows["pages"] / options.rows, 2),
        )  # fmt: skip
        if not options.kills:
            return
        killed, rows = Path(place) / "killed", options.rows // 3
        generator = random.Random(0)
        for _ in range(options.kills):
            process = start(model, killed, rows)
            time.sleep(generator.uniform(3, 3 + 1.5 * rows * each[1] / options.kills))
            process.send_signal(signal.SIGKILL)
            process.wait()
        finished(start(model, killed, rows))
        whole = Path(place) / "whole"
        finished(start(model, whole, rows))
        names = {path.name for path in killed.iterdir() if not path.name.startswith((".", "_"))}
        same = names == {path.name for path in whole.iterdir() if not path.name.startswith((".", "_"))}
        files = [path for path in whole.rglob("*") if path.is_file() and path.name != "_lock"]
        differ = [p for p in files if p.read_bytes() != (killed / p.relative_to(whole)).read_bytes()]
        share = (len(files) - len(differ)) / len(files) if same else 0.0
        name = f"killed {options.kills} times: files as of an undisturbed run"
        report(name, len(files) - len(differ), len(files), "files", share, 1.0)


if __name__ == "__main__":
    main()
