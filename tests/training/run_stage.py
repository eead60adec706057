"""Runs a stage in a process of its own: what `accelerate launch` and the tests that kill processes start."""

import json
import sys
from pathlib import Path
from typing import Any


def run_stage(stage: str, settings: dict[str, Any]) -> str:
    """Runs a stage with some settings and returns the folder of what it made."""
    from importlib import import_module

    from altdiffusion_clip.commands.train import STAGES

    config, module, function, _ = STAGES[stage]
    return str(getattr(import_module(f"altdiffusion_clip.training.{module}"), function)(config.of(settings)))


if __name__ == "__main__":
    for stage, settings in json.loads(Path(sys.argv[1]).read_text()):
        run_stage(stage, settings)
