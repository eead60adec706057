"""`altdiffusion filter` with a million made-up rows: peak memory compared with a tenth of the rows.

    python benchmarks/filter.py [--rows 1000000]

The rows are JSON lines, in shards of 10,000 with made-up scores in three languages. The best 30% of each language are
kept. Kept and rejected rows are counted, and thresholds are compared with numpy's over all scores in memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from report import report_at_most

from altdiffusion_clip.bulk.filtering import Criterion, Filter, run_filter
from altdiffusion_clip.bulk.shards import Scored, ShardFolder, Span
from altdiffusion_clip.sources.places import same_place, stamp_of
from altdiffusion_clip.sources.retries import Retries

LANGUAGES = ("en", "zh", "th")
SHARD = 10_000
SHARE = 0.3


def make_up(folder: Path, rows: int) -> dict[str, np.ndarray]:
    """Writes a source and the shards of its scores. Returns the scores by language."""
    source = folder / "rows.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"id": f"{number}", "image": f"{number}.jpg", "text": f"a cat {number}"}) + "\n")
    place = same_place(str(source))
    plan = {"columns": ["image", "text", "language", "id"], "image_root": "", "encoding": "", "captions": "best"}
    judges = [{"name": "made-up", "measure": "cosine"}]
    shards = ShardFolder(folder / "scores", {**plan, "judges": judges}, {place: stamp_of(place)})
    generator = np.random.default_rng(0)
    of_language: dict[str, list[np.ndarray]] = {language: [] for language in LANGUAGES}
    for shard, start in enumerate(range(0, rows, SHARD)):
        count = min(SHARD, rows - start)
        language = generator.integers(0, len(LANGUAGES), count)
        cosines = generator.normal(0.2 + 0.05 * language, 0.05).astype(np.float32)
        for number, code in enumerate(LANGUAGES):
            of_language[code].append(cosines[language == number])
        scored = [
            Scored(f"{start + row}", (float(cosines[row]),), language=LANGUAGES[language[row]]) for row in range(count)
        ]
        shards.write(shard, scored, [Span(place, start, count)])
    return {code: np.concatenate(parts) for code, parts in of_language.items()}


def filter_alone(folder: Path) -> None:
    """Runs in its own process, to measure its peak memory."""
    started = time.perf_counter()
    wanted = Filter((Criterion("share", SHARE),), by_language=True)
    counts, _ = run_filter(folder / "scores", folder / "out", wanted, Retries())
    spent = time.perf_counter() - started
    # Not from getrusage, which starts at the size of the parent process.
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    print(json.dumps({"seconds": spent, "peak": peak, "kept": counts.kept, "rows": counts.rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        filter_alone(options.alone)
        return
    runs = []
    for rows in (options.rows // 10, options.rows):
        with tempfile.TemporaryDirectory() as name:
            scores = make_up(Path(name), rows)
            ran = subprocess.run([sys.executable, __file__, "--alone", name], stdout=subprocess.PIPE, check=True)
            runs.append(json.loads(ran.stdout.splitlines()[-1]))
            (thresholds,) = json.loads((Path(name) / "out" / "_plan.json").read_text())["thresholds"]
            kept = sum(1 for _ in (Path(name) / "out" / "kept" / "rows.jsonl").open())
            rejected = sum(1 for _ in (Path(name) / "out" / "rejected" / "rows.jsonl.jsonl").open())
        for code, values in scores.items():
            best = np.sort(values)[len(values) - round(SHARE * len(values))]
            assert thresholds[code] == float(best), "exactly numpy's"
        assert kept + rejected == rows == runs[-1]["rows"]
    few, many = runs
    rate = round(many["rows"] / many["seconds"])
    name = f"filter, peak memory, {options.rows} rows over a tenth of them"
    report_at_most(name, many["peak"], few["peak"], "bytes resident", 1.1, rows_a_second=rate)


if __name__ == "__main__":
    main()
