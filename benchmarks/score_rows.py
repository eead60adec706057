"""Scoring many rows: memory and time per row do not grow with their number, and kills lose nothing.

    python benchmarks/score_rows.py [--rows 50000] [--few 5000] [--kills 10] [--folder build/score-rows] [--device cpu]

`altdiffusion score` runs with emoji-m18 on 2,500 shifted renders with captions in eighteen languages, in shards of
2,500 rows. Each run has its own process. Memory is the peak resident memory, and time is measured between the first
shard and the last. Then the long run is repeated with kills (SIGKILL) at random moments, and compared row by row with
the undisturbed one.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import ImageChops
from report import machine, report_at_most
from tqdm import tqdm

from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.scenes import Scene

SHARD = 2500


def write_rows(folder: Path, count: int) -> Path:
    """Writes rows with as many distinct pictures as a shard has rows."""
    source = folder / f"{count}.jsonl"
    if source.is_file():
        return source
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    generator, shown = random.Random(0), plain_pairs(unseen=True)
    for number in tqdm(range(SHARD), desc="pictures"):
        path = folder / "pictures" / f"{number}.png"
        thing, ground = shown[number % len(shown)]
        picture = ImageChops.offset(
            Scene("one", (thing,), ground).render(), number // len(shown), generator.randrange(-4, 5)
        )
        picture.putpixel((0, 0), (number % 256, number // 256, 0))
        picture.save(path)
    lines = []
    for number in range(count):
        text = captions(
            *shown[(number if number % 2 else number * 7) % len(shown)], LANGUAGES[number % len(LANGUAGES)]
        )[0]
        image = str((folder / "pictures" / f"{number % SHARD}.png").absolute())
        lines.append(json.dumps({"id": f"row-{number}", "image": image, "text": text}, ensure_ascii=False) + "\n")
    source.write_text("".join(lines), encoding="utf-8")
    return source


def command(source: Path, output: Path, device: str) -> list[str]:
    options = ["--shard-size", str(SHARD), "--dtype", "float32", "--workers", "0", "--output", str(output)]
    options += ["--device", device]
    return [sys.executable, "-m", "altdiffusion_clip.cli", "score", str(source), *options]


def undisturbed(source: Path, output: Path, device: str) -> tuple[float, float]:
    """Peak resident bytes, and seconds per row."""
    shutil.rmtree(output, ignore_errors=True)
    process = subprocess.Popen(command(source, output, device), stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    shards = sorted(output.glob("part-*.parquet"))
    times = [path.stat().st_mtime for path in shards]
    return usage.ru_maxrss * 1024.0, (times[-1] - times[0]) / (SHARD * (len(shards) - 1))


def killed(source: Path, output: Path, device: str, kills: int, seconds: float) -> int:
    """Runs to the end with kills at random moments. Returns how many of them hit a run in progress."""
    shutil.rmtree(output, ignore_errors=True)
    generator = random.Random(1)
    done = 0
    while True:
        arguments = command(source, output, device)
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Long enough to start, and short enough that all kills hit the run.
            process.wait(timeout=8 + generator.uniform(0, seconds / kills) if done < kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            continue
        if process.returncode == 0:
            return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--few", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("build/score-rows"))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    sources = {count: write_rows(options.folder, count) for count in (options.few, options.rows)}
    measured = {
        count: undisturbed(source, options.folder / f"out-{count}", options.device) for count, source in sources.items()
    }
    start = time.perf_counter()
    whole = measured[options.rows][1] * options.rows
    kills = killed(sources[options.rows], options.folder / "out-killed", options.device, options.kills, whole)
    same = read_shards(options.folder / "out-killed") == read_shards(options.folder / f"out-{options.rows}")
    rows = len(read_shards(options.folder / "out-killed"))
    line = {
        "name": "score, killed",
        "kills": kills,
        "rows": rows,
        "same_rows": same,
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps({**line, "holds": same and rows == options.rows and kills >= options.kills, "machine": machine()}))
    (few_peak, few_time), (peak, each) = measured[options.few], measured[options.rows]
    names = f"{options.rows} rows over {options.few}"
    report_at_most(f"score, seconds a row, {names}", each, few_time, "seconds a row", 1.1)
    report_at_most(f"score, peak memory, {names}", peak, few_peak, "bytes resident", 1.05)


if __name__ == "__main__":
    main()
