"""Runs everything that waits for a GPU, in pieces of at most ten minutes, none of them twice.

    python scripts/gpu.py --out OUT [--seconds 560] [--pieces unet_steps models unet tests benchmarks] [--device cuda]

Pieces run in order while there is time: emoji-m18's autoencoder, teacher and student, in parallel where possible; its
UNet, in the remaining time; the tests that need a GPU; and every benchmark, or the named ones. Running `unet_steps`
first on the same machine also leaves a compiled UNet for the training.

`ledger.json` in the work folder and in OUT records what is done. Bring it back, and pass it along with the next call.
OUT also gets the benchmarks' lines, the logs, and the weights as `models.tar.000`, `unet.tar.000`, ... of 15 MiB each,
to be joined with `cat`.

The machine needs torch. Pass whatever else is missing as wheels in a folder (`--wheels`). No network is used.
Run it in the foreground. OUT has whatever is done, even if the call is cut off.
"""

import argparse
import importlib.util
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
PACKING_SECONDS = 25.0
"""Seconds to leave after the UNet's training."""
BENCHMARKS = {
    "unet_steps": ["--device", "cuda", "--batch", "256", "--steps", "30", "--workers", "12"],
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
"""Benchmarks with their arguments. Each is a piece."""

LEAST_SECONDS = {"tests": 60, "benchmark": 45}


class Ledger:
    """The record of finished pieces, written after each.

    Args:
        paths: where to write it; it is read from the first that exists.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        known = next((path for path in paths if path.is_file()), None)
        self.done: dict[str, dict[str, object]] = json.loads(known.read_text()) if known else {}

    def add(self, piece: str, **what: object) -> None:
        """Records a piece."""
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
    parser.add_argument("--pieces", nargs="+", default=["models", "unet", "tests", "benchmarks"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--train-seconds", type=float, help="of every stage, to try this script")
    options = parser.parse_args()
    ends = time.monotonic() + options.seconds
    if options.wheels:
        install(options.wheels, options.work / "site")
    ledger = Ledger(options.work / "ledger.json", options.out / "ledger.json")

    def left() -> float:
        return ends - time.monotonic()

    link_packages()
    options.out.mkdir(parents=True, exist_ok=True)
    if "models" in options.pieces and "models" not in ledger.done:
        train_models(options, ledger, left())
    if "unet" in options.pieces and "unet" not in ledger.done and left() > PACKING_SECONDS + 30:
        train_unet(options, ledger, left() - PACKING_SECONDS)
    if "tests" in options.pieces and "tests" not in ledger.done and left() > LEAST_SECONDS["tests"]:
        tests = [f"tests/accelerators/{name}.py" for name in ("drawing", "scoring", "training")]
        code, tail = run([sys.executable, "-m", "pytest", "--noconftest", "-q", *tests], left())
        if code is not None:
            ledger.add("tests", exit_code=code, tail=tail)
    for name, arguments in BENCHMARKS.items():
        piece = f"benchmark {name}"
        if "benchmarks" not in options.pieces and name not in options.pieces:
            continue
        if piece in ledger.done or left() < LEAST_SECONDS["benchmark"]:
            continue
        given = [options.device if argument == "cuda" else argument for argument in arguments]
        code, tail = run([sys.executable, f"benchmarks/{name}.py", *given], left())
        if code is None:
            continue  # cut off, but there may be time for a shorter one
        lines = [line for line in tail.splitlines() if line.startswith("{")]
        ledger.add(piece, exit_code=code, lines=lines, tail="" if lines else tail)
        with (options.out / "results.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
    print(json.dumps({"done": sorted(ledger.done), "seconds_left": round(left())}))


def train_models(options: argparse.Namespace, ledger: Ledger, seconds: float) -> None:
    """Everything before the UNet, in parallel where possible."""
    ends = time.monotonic() + seconds
    Stage(options, [], []).wait(60)  # restores the packaged parts before several processes look for them
    clock = ["--train-seconds", str(options.train_seconds)] if options.train_seconds else []
    codes = {}
    for together in ((["vae", "latents"], ["teacher"], ["sentences"]), (["distill", "contrastive", "scoring"],)):
        stages = [Stage(options, names, clock) for names in together]
        for stage in stages:
            codes["+".join(stage.names)] = stage.wait(ends - time.monotonic())
        if any(code != 0 for code in codes.values()):
            break
    kept = options.work / "emoji-m18-kept"
    codes["keep"] = Stage(options, [], ["--keep", str(kept)]).wait(60)
    parts = pack(options, "models", [kept, *(options.work / "emoji-m18").glob("*/metrics.jsonl")])
    if all(code == 0 for code in codes.values()):
        ledger.add("models", parts=parts)
    print(json.dumps({"models": codes, "parts": parts}), flush=True)


def train_unet(options: argparse.Namespace, ledger: Ledger, seconds: float) -> None:
    """The UNet, limited by time."""
    started = time.monotonic()
    # Latents, reading and the first steps take time too.
    clock = str(options.train_seconds or max(10.0, seconds - 75))
    stage = Stage(options, ["latents", "align"], ["--train-seconds", clock])
    folder, packed = options.work / "emoji-m18" / "align", 0.0
    checkpoint = folder / "checkpoint.pt"

    def bring_out() -> int:
        Stage(options, [], []).wait(60)  # writes the average
        return pack(options, "unet", [folder / name for name in ("unet.safetensors", "metrics.jsonl", "samples")])

    # If this is cut off, OUT has the weights of the last minutes.
    while stage.is_running() and time.monotonic() - started < seconds:
        time.sleep(5)
        if checkpoint.is_file() and checkpoint.stat().st_mtime > packed:
            packed = checkpoint.stat().st_mtime
            bring_out()
    code = stage.wait(10)
    parts = bring_out()
    if code == 0:
        ledger.add("unet", parts=parts, seconds=round(time.monotonic() - started))
    print(json.dumps({"unet": code, "parts": parts}), flush=True)


class Stage:
    """Runs stages of emoji-m18's recipe in another process, with a log under their name.

    Args:
        options: of this script.
        names: of the stages; none for the recipe's last actions.
        more: arguments for the recipe.
    """

    def __init__(self, options: argparse.Namespace, names: list[str], more: list[str]) -> None:
        self.names = names
        self._path = options.work / "logs" / f"{'-'.join(names) or 'end'}.log"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "altdiffusion_clip.emoji.recipe", "--stage", *names]
        command += ["--work", str(options.work / "emoji-m18"), "--profile", "gpu", "--mixed-precision", "bf16", *more]
        with self._path.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(command, cwd=HERE, env=environment(), stdout=log, stderr=log)

    def is_running(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None if it had to be killed. Shows its last output."""
        code: int | None = None
        try:
            code = self._process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self._process.terminate()
        last = self._path.read_text(encoding="utf-8").replace("\r", "\n").strip().splitlines()[-12:]
        print(f"--- {' '.join(self.names)}: {code}\n" + "\n".join(line[-400:] for line in last), flush=True)
        return code


def pack(options: argparse.Namespace, name: str, paths: list[Path]) -> int:
    """Writes files and folders to OUT in parts. Returns how many parts."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in (*paths, options.work / "logs"):
            if path.exists():
                tar.add(path, arcname=str(path.relative_to(options.work)))
    data = packed.getvalue()
    starts = range(0, len(data), PART)
    for number, start in enumerate(starts):
        (options.out / f"{name}.tar.{number:03d}").write_bytes(data[start : start + PART])
    return len(starts)


def run(command: list[str], seconds: float) -> tuple[int | None, str]:
    """Runs a command with a time limit. Returns its exit code (None if it was cut off) and the end of its output."""
    try:
        done = subprocess.run(
            command, cwd=HERE, env=environment(), timeout=max(1.0, seconds), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout[-6000:]


def environment() -> dict[str, str]:
    """The environment of every process: this clone, the wheels, no network, and few threads."""
    paths = [str(HERE), str(HERE / "build/gpu/site"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }


def install(wheels: Path, site: Path) -> None:
    """Installs wheels without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade"]
    subprocess.run([*pip, "--target", str(site), *map(str, sorted(wheels.glob("*.whl")))], check=True)


def link_packages() -> None:
    """Links pipelines/, benchmarks/ and demo/ into the package, as an installation would."""
    if importlib.util.find_spec("altdiffusion_clip") is None:
        for name in ("pipelines", "benchmarks", "demo"):
            if not (HERE / "altdiffusion_clip" / name).exists():
                (HERE / "altdiffusion_clip" / name).symlink_to(HERE / name)


if __name__ == "__main__":
    main()
