"""Runs a stage in a process of its own: what `accelerate launch` and the tests that kill processes start."""

import json
import sys
from pathlib import Path
from typing import Any


def run_stage(stage: str, settings: dict[str, Any]) -> str:
    """Runs a stage with some settings and returns the folder of what it made."""
    from altdiffusion_clip.training.stages import STAGES

    return str(STAGES[stage].run(STAGES[stage].config.of(settings)))


if __name__ == "__main__":
    for stage, settings in json.loads(Path(sys.argv[1]).read_text()):
        run_stage(stage, settings)
        if len(sys.argv) > 2:
            from accelerate import PartialState

            assert PartialState().num_processes == int(sys.argv[2]), "as many as were asked for"
