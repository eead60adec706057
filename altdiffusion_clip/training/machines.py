"""Runs on several machines. If they share no disk, each prepares the data itself and gets the results of the first."""

import os
import secrets
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_folder, atomic_path

BYTES_AT_ONCE = 64 * 2**20


@dataclass(frozen=True)
class Crew:
    """The processes that prepare data on one disk together.

    Attributes:
        rank: of this process among them.
        size: how many they are.
        accelerator: of the run; None for a single process without one.
        group: torch's, if they are not all processes of the run.
    """

    rank: int
    size: int
    accelerator: Accelerator | None = None
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process does what only one of them should do."""
        return self.rank == 0

    def wait(self) -> None:
        """Waits for the others."""
        if self.group is not None:
            torch.distributed.barrier(self.group)
        elif self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def crew_of(accelerator: Accelerator | None) -> Crew:
    """The processes that share this one's disk."""
    if accelerator is None:
        return Crew(0, 1)
    crew: Crew | None = getattr(accelerator, "crew", None)
    return crew or _everyone(accelerator)


def _everyone(accelerator: Accelerator) -> Crew:
    return Crew(accelerator.process_index, accelerator.num_processes, accelerator)


def is_main(accelerator: Accelerator | None) -> bool:
    """Whether this process speaks for the whole run."""
    return accelerator is None or bool(accelerator.is_main_process)


def find_crew(folder: Path, accelerator: Accelerator) -> Crew:
    """Finds out whether the machines of a run share a disk.

    Args:
        folder: of the run.
        accelerator: of the run. All its processes must call this.

    Raises:
        UserError: some machines share the folder and others do not.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    if here == accelerator.num_processes:
        return _everyone(accelerator)
    (name,) = broadcast_object_list([f".shared-{secrets.token_hex(8)}"])
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    accelerator.wait_for_everyone()
    found = torch.tensor([float((folder / name).exists())], device=accelerator.device)
    seen = int(accelerator.reduce(found).item())
    if accelerator.is_main_process:
        (folder / name).unlink()
    if seen == accelerator.num_processes:
        return _everyone(accelerator)
    if seen != here:
        raise UserError(f"only some machines share {folder}; give a folder that all share or one that none shares")
    if accelerator.num_processes % here:
        raise UserError("machines that share no disk need equally many processes each")
    mine, _ = torch.distributed.new_subgroups(here)
    return Crew(accelerator.local_process_index, here, accelerator, mine)


def copy_to_all(path: Path, accelerator: Accelerator) -> None:
    """Copies a file or folder from the main process's machine to machines with disks of their own.

    Args:
        path: on every machine. If the main one does not have it, nothing happens. A folder that exists is kept.
        accelerator: of the run. All its processes must call this.

    Raises:
        UserError: another machine has it, but the main one does not.
    """
    crew = crew_of(accelerator)
    if crew.group is None:
        return
    inside = [path] if path.is_file() else [each for each in sorted(path.rglob("*")) if each.is_file()]
    sizes = [(str(each.relative_to(path)), each.stat().st_size) for each in inside]
    has = accelerator.reduce(torch.tensor([float(path.exists())], device=accelerator.device))
    sizes, is_folder = broadcast_object_list([sizes, path.is_dir()])
    if not sizes:
        if has.item():
            raise UserError(f"another machine has {path}, but the first one does not; move it to the first machine")
        return
    writes = crew.is_first and not accelerator.is_main_process and not (is_folder and path.is_dir())
    destination = nullcontext() if not writes else atomic_folder(path) if is_folder else atomic_path(path)
    with destination as place:
        _send(path, sizes, place, accelerator)
    crew.wait()  # the others of this machine have received all of it, but must not look before it is in its place


def _send(path: Path, sizes: list[tuple[str, int]], place: Path | None, accelerator: Accelerator) -> None:
    for name, size in sizes:
        with ExitStack() as files:
            source = files.enter_context((path / name).open("rb")) if accelerator.is_main_process else None
            target = None
            if place is not None:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                target = files.enter_context((place / name).open("wb"))
            for start in range(0, size, BYTES_AT_ONCE):
                count = min(BYTES_AT_ONCE, size - start)
                part = torch.empty(count, dtype=torch.uint8)
                if source is not None:
                    part = torch.frombuffer(bytearray(source.read(count)), dtype=torch.uint8)
                part = part.to(accelerator.device)
                torch.distributed.broadcast(part, 0)
                if target is not None:
                    target.write(part.cpu().numpy().tobytes())
