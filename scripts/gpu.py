"""Everything that waits for a GPU, in pieces that each fit into a lease of ten minutes, none of them done twice.

    python scripts/gpu.py --out OUT [--seconds 560] [--pieces training tests benchmarks] [--device cuda]

Pieces are done in order for as long as there is time: emoji-m18's UNet (its checkpoint is in `--work`, so that another
call goes on with it while the machine is there); the tests that want a GPU; every benchmark, alone. What is done stands
in `ledger.json`, in the work folder and in OUT; bring it back and carry it along with the next call. OUT also gets the
lines of the benchmarks, and the weights as `weights.tar.000`, `.001`, ... of 15 MiB each, to be joined with `cat`.

The machine needs torch; what else is missing goes along as wheels in a folder (`--wheels`). No network is used.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PART = 15 * 2**20
MOST_PARTS = 4
BENCHMARKS = {
    "scoring": ["--device", "cuda"],
    "optimize": ["--device", "cuda", "--size", "512", "--batch-sizes", "1", "4"],
    "prompt_encoding": ["--device", "cuda"],
    "pipeline_overhead": ["--device", "cuda"],
    "memory": ["--device", "cuda"],
    "retrieval": ["--device", "cuda"],
    "training": ["--device", "cuda", "--layers", "24", "--batch", "64"],
    "halving": ["--device", "cuda"],
    "score_rows": ["--device", "cuda"],
    "emphasis": ["--device", "cuda"],
}
"""With their arguments; each is a piece."""

LEAST_SECONDS = {"tests": 60, "benchmark": 45}


class Ledger:
    """What has been done, on disk after each piece.

    Args:
        paths: where it is kept; read from the first that is there.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        known = next((path for path in paths if path.is_file()), None)
        self.done: dict[str, dict[str, object]] = json.loads(known.read_text()) if known else {}

    def add(self, piece: str, **what: object) -> None:
        """Notes a piece."""
        self.done[piece] = what
        for path in self._paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.done, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu/out")))
    parser.add_argument("--work", type=Path, default=Path("build/gpu"))
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--seconds", type=float, default=560.0, help="end by then (default: 560)")
    parser.add_argument("--pieces", nargs="+", default=["training", "tests", "benchmarks"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, help="of the training, to try this script")
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    if options.wheels:
        install(options.wheels, options.work / "site")
    ledger = Ledger(options.work / "ledger.json", options.out / "ledger.json")

    def left() -> float:
        return ends - time.monotonic()

    if "training" in options.pieces and "training" not in ledger.done:
        train(options, ledger, left() - 40)  # what is saved and packed takes its time too
    if "tests" in options.pieces and "tests" not in ledger.done and left() > LEAST_SECONDS["tests"]:
        tests = [f"tests/accelerators/{name}.py" for name in ("drawing", "scoring", "training")]
        code, tail = run([sys.executable, "-m", "pytest", "--noconftest", "-q", *tests], left())
        if code is not None:
            ledger.add("tests", exit_code=code, tail=tail)
    for name, arguments in BENCHMARKS.items() if "benchmarks" in options.pieces else ():
        piece = f"benchmark {name}"
        if piece in ledger.done or left() < LEAST_SECONDS["benchmark"]:
            continue
        given = [options.device if argument == "cuda" else argument for argument in arguments]
        code, tail = run([sys.executable, f"benchmarks/{name}.py", *given], left())
        if code is None:
            continue  # cut off: there may be time for a shorter one
        lines = [line for line in tail.splitlines() if line.startswith("{")]
        ledger.add(piece, exit_code=code, lines=lines, tail="" if lines else tail)
        with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
    print(json.dumps({"done": sorted(ledger.done), "seconds_left": round(left())}))


def train(options: argparse.Namespace, ledger: Ledger, seconds: float) -> None:
    """Goes on with emoji-m18's stages, and packs what is there."""
    command = [sys.executable, "-m", "altdiffusion_clip.emoji_m18.recipe", "--work", str(options.work / "emoji-m18")]
    command += ["--profile", "gpu", "--mixed-precision", "bf16", "--seconds", str(max(1.0, seconds))]
    if options.steps:
        command += ["--steps", str(options.steps)]
    code, tail = run(command, seconds + 30)
    print(tail[-2000:])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("unet.safetensors", "samples"):
            for path in sorted((options.work / "emoji-m18" / "align").glob(f"{name}*")):
                tar.add(path, arcname=path.name)
    data = packed.getvalue()
    for number, start in enumerate(range(0, len(data), PART)):
        if number < MOST_PARTS:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"weights.tar.{number:03d}").write_bytes(data[start : start + PART])
    if code == 0:
        ledger.add("training", parts=-(-len(data) // PART), tail=tail[-500:])


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Runs a command for so long at most: its exit code, None if it was cut off, and the end of what it printed."""
    paths = [str(HERE / "build/gpu/site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, cwd=HERE, env=environment, timeout=max(1.0, seconds), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout[-6000:]


def install(wheels: Path, site: Path) -> None:
    """Installs wheels, and this project as it is imported, without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
    subprocess.run([*pip, "--target", str(site), *map(str, sorted(wheels.glob("*.whl")))], check=True)
    package = site / "altdiffusion_clip"
    if not package.exists():
        # As setup.py would: pipelines/, benchmarks/ and demo/ lie inside the package.
        package.mkdir(parents=True)
        for path in (HERE / "altdiffusion_clip").iterdir():
            (package / path.name).symlink_to(path)
        for name in ("pipelines", "benchmarks", "demo"):
            (package / name).symlink_to(HERE / name)


if __name__ == "__main__":
    main()
