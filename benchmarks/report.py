"""Prints the JSON lines of benchmarks."""

import json
import platform
from pathlib import Path

import torch


def machine() -> str:
    """The machine: the processor, and the GPU if there is one."""
    bf16 = ", AVX512-BF16" if has_bf16() else ""
    cpu = f"{_cpu('model name') or platform.processor()}, {torch.get_num_threads()} threads{bf16}"
    return f"{torch.cuda.get_device_name()}; {cpu}" if torch.cuda.is_available() else cpu


def has_bf16() -> bool:
    """Whether the processor supports bfloat16 products."""
    return "avx512_bf16" in _cpu("flags").split()


def _cpu(field: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def report(name: str, ours: float, theirs: float, unit: str, ratio: float, goal: float, **more: object) -> None:
    """Prints a line. A larger `ratio` is better."""
    _print(name, ours, theirs, unit, {"ratio": ratio, "goal": goal}, ratio >= goal, more)


def report_at_most(name: str, ours: float, theirs: float, unit: str, goal: float, **more: object) -> None:
    """Prints a line for a measure where smaller is better, relative to theirs."""
    share = ours / theirs
    _print(name, ours, theirs, unit, {"ratio_at_most": share, "goal": goal}, share <= goal, more)


def _print(
    name: str, ours: float, theirs: float, unit: str, ratio: dict[str, float], holds: bool, more: dict[str, object]
) -> None:
    line: dict[str, object] = {"name": name, "ours": ours, "theirs": theirs, "unit": unit, **ratio}
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()}
    print(json.dumps({**rounded, "holds": holds, "machine": machine(), **more}))
