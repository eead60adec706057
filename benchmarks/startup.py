"""How long people wait before anything happens: `altdiffusion --help`, and `import altdiffusion_clip`.

    python benchmarks/startup.py [--rounds 9]

Help against importing torch and diffusers; the package's own share beside those of the two. Each in a new process, in
turns, files in the system's cache; medians.
"""

import argparse
import statistics
import subprocess
import sys
import time

from report import report_at_most

COMMANDS = {
    "help": [sys.executable, "-m", "altdiffusion_clip.cli", "--help"],
    "libraries": [sys.executable, "-c", "import diffusers, torch"],
    "with ours": [sys.executable, "-c", "import diffusers, torch, altdiffusion_clip"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    names = list(COMMANDS)
    for number in range(options.rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            subprocess.run(COMMANDS[name], check=True, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    report_at_most("startup, altdiffusion --help", median["help"], median["libraries"], "seconds", 0.6)
    report_at_most("startup, import altdiffusion_clip", median["with ours"], median["libraries"], "seconds", 1.05)


if __name__ == "__main__":
    main()
