"""Runs stages in a process of their own: what torchrun and the tests that kill processes start."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def run_stage(stage: str, settings: dict[str, Any]) -> str:
    """Runs a stage with some settings and returns the folder of what it made."""
    from altdiffusion_clip.training.stages import STAGES

    return str(STAGES[stage].run(STAGES[stage].config.of(settings)))


def shard() -> None:
    """Has accelerate shard on CPUs too, where it only would on GPUs; torch itself does it on both."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState

    from altdiffusion_clip.training import accelerators

    class Sharding(Accelerator):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")
            AcceleratorState._shared_state |= {"distributed_type": DistributedType.FSDP, "fsdp_plugin": plugin}

    accelerators.Accelerator = Sharding  # type: ignore[misc]


def slow_down_copies() -> None:
    """Has files from another machine appear a second after all of it has been received."""
    from altdiffusion_clip.training import machines

    at_once = machines.atomic_path

    @contextmanager
    def slowly(path: Path) -> Iterator[Path]:
        with at_once(path) as place:
            yield place
            time.sleep(1)

    machines.atomic_path = slowly  # type: ignore[assignment]


def main(jobs: Path, processes: int, *modes: str) -> None:
    """Runs jobs, in as many processes as were asked for; one that stops itself is left to the next."""
    from accelerate import PartialState

    from altdiffusion_clip.training.loop import Stopped

    if "sharded" in modes:
        shard()
    if "slow-copies" in modes:
        slow_down_copies()
    for stage, settings in json.loads(jobs.read_text()):
        with suppress(Stopped):
            run_stage(stage, settings)
        assert PartialState().num_processes == processes


def run_as_one_of(rank: int, processes: int, port: int, jobs: Path) -> None:
    """Runs jobs as one of several processes, with the environment that torchrun gives them."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ.update(
        {name: str(value) for name, value in here.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    main(jobs, processes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
