"""The one JSON line that each benchmark ends with."""

import json
import platform
from pathlib import Path

import torch


def machine() -> str:
    """The processor or GPU that the figures are of."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def report(name: str, ours: float, theirs: float, unit: str, ratio: float, goal: float, **more: object) -> None:
    """Prints the line; `ratio` is the direction that is better when larger."""
    line = {"name": name, "ours": ours, "theirs": theirs, "unit": unit, "ratio": ratio, "goal": goal}
    rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()}
    print(json.dumps({**rounded, "holds": ratio >= goal, "machine": machine(), **more}))
