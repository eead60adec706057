"""Start-up time of `altdiffusion --help` and `import altdiffusion_clip`.

    python benchmarks/startup.py [--rounds 9]

Help is compared with importing torch and diffusers, and importing the package with importing these two. Each runs in a
new process, in turns, with files in the system's cache. Figures are medians.
"""

import argparse
import functools
import statistics
import subprocess
import sys

from report import report_at_most
from timing import in_turns

COMMANDS = {
    "help": [sys.executable, "-m", "altdiffusion_clip.cli", "--help"],
    "libraries": [sys.executable, "-c", "import diffusers, torch"],
    "with ours": [sys.executable, "-c", "import diffusers, torch, altdiffusion_clip"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    sides = {
        name: functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
        for name, command in COMMANDS.items()
    }
    seconds = in_turns(sides, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    report_at_most("startup, altdiffusion --help", median["help"], median["libraries"], "seconds", 0.6)
    report_at_most("startup, import altdiffusion_clip", median["with ours"], median["libraries"], "seconds", 1.05)


if __name__ == "__main__":
    main()
