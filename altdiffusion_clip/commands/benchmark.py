"""`altdiffusion benchmark`: measures this project's claims on your machine."""

import argparse
import ast
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError

PARTS = frozenset({"__init__", "report", "full_size", "timing"})
"""Files that are not benchmarks."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "benchmark",
        help="Measure this project's claims on your machine.",
        description="Run benchmarks. Each measures this package and a reference in one run and prints the ratio. "
        "Without a name, list them. They take from seconds to an hour.",
        examples=[
            "altdiffusion benchmark startup prompt_encoding",
            'altdiffusion benchmark scoring --arguments="--rounds 2"',
        ],
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="Benchmarks to run, or all.")
    parser.add_argument("--device", help="Device for the benchmarks that take one.")
    parser.add_argument("--arguments", default="", metavar="LINE", help="Arguments for each benchmark.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per figure and nothing else.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Runs the benchmarks. Returns whether all ran and every claim holds."""
    scripts = find_benchmarks()
    if not options.names:
        for name, path in scripts.items():
            about = what_it_measures(path)
            print(json.dumps({"name": name, "measures": about}) if options.json else f"{name:<18} {about}")
        return True
    wanted = list(scripts) if options.names == ["all"] else options.names
    given = shlex.split(options.arguments)
    for name in wanted:
        if name not in scripts:
            raise UserError(f"there is no benchmark {name}; there are {', '.join(scripts)}, and all")
    failed = []
    figures: list[dict[str, Any]] = []
    for name in wanted:
        print(f"{name}: {what_it_measures(scripts[name])}", file=sys.stderr)
        on_device = ["--device", options.device] if options.device and takes_device(scripts[name]) else []
        found, code = measure(scripts[name], [*on_device, *given])
        if code or not found:
            failed.append(name)
            print(f"failed {name}: it ended with {code}", file=sys.stderr)
        figures += found
        for figure in found:
            print(json.dumps(figure, ensure_ascii=False) if options.json else line_of(figure), flush=True)
    return not failed and all(figure.get("holds", True) for figure in figures)


def find_benchmarks() -> dict[str, Path]:
    """The scripts by name."""
    spec = importlib.util.find_spec("altdiffusion_clip.benchmarks")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise UserError("the benchmarks are not installed; reinstall altdiffusion-clip")
    return {path.stem: path for path in sorted(Path(places[0]).glob("*.py")) if path.stem not in PARTS}


def what_it_measures(script: Path) -> str:
    """The first line of its docstring."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def takes_device(script: Path) -> bool:
    """Whether a script has a --device option."""
    return '"--device"' in script.read_text(encoding="utf-8")


def measure(script: Path, arguments: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Runs a script in its own process and returns its figures and exit code. Its other output goes to stderr."""
    figures = []
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if isinstance(found, dict):
                figures.append(found)
            else:
                print(line, end="", file=sys.stderr)
        return figures, process.wait()
    finally:
        if process.poll() is None:  # Ctrl-C or SIGTERM
            process.terminate()
            process.wait()


def line_of(figure: dict[str, Any]) -> str:
    """Formats a figure for people to read."""
    if "ratio" in figure:
        ratio = f"{figure['ratio']:.2f} times (goal {figure['goal']})"
    elif "ratio_at_most" in figure:
        ratio = f"{figure['ratio_at_most']:.3f} (goal at most {figure['goal']})"
    else:
        return ", ".join(f"{key} {value}" for key, value in figure.items())
    verdict = "holds" if figure["holds"] else "DOES NOT HOLD"
    sides = f"ours {figure['ours']:.4g}, theirs {figure['theirs']:.4g} {figure['unit']}"
    return f"{figure['name']}: {ratio}, {verdict}; {sides}; {figure['machine']}"
