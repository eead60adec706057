"""Estimates what a run will take."""

import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from altdiffusion_clip.drawing.calls import Drawer
from altdiffusion_clip.drawing.folder import OutputFolder
from altdiffusion_clip.drawing.tasks import Task
from altdiffusion_clip.files import free_bytes


@dataclass(frozen=True)
class Estimate:
    """What a run would draw.

    Attributes:
        pictures: in total.
        there: how many exist with the same settings.
        wrong: rows that cannot be drawn, with the reasons.
        seconds: to draw the missing ones on this machine.
        bytes: of disk space for them.
        free: bytes of free disk space.
    """

    pictures: int
    there: int
    wrong: tuple[str, ...]
    seconds: float
    bytes: int
    free: int

    def said(self, as_json: bool) -> str:
        """The estimate as lines, or as one JSON object."""
        if as_json:
            return json.dumps({**asdict(self), "missing": self.pictures - self.there}, ensure_ascii=False)
        left = self.pictures - self.there - len(self.wrong)
        lines = [
            f"{self.pictures} pictures, {self.there} are there, {left} to draw",
            f"about {_duration(self.seconds)} here, and {_size(self.bytes)} of disk ({_size(self.free)} are free)",
        ]
        return "\n".join([*lines, *(f"cannot be drawn: {reason}" for reason in self.wrong)])


def estimate_of(output: OutputFolder, missing: Iterable[list[Task]], drawer: Drawer) -> Estimate:
    """Estimates a run from one picture that is drawn in a few steps and thrown away."""
    steps, count, wrong, size = 0, 0, list[str](), 0
    fixed = per_step = 0.0
    for batch in missing:
        if batch[0].error:
            wrong.append(batch[0].error)
            continue
        if not count:
            settings = replace(batch[0].settings, batch_seeds=(batch[0].settings.seed,))
            drawer.draw(replace(settings, num_inference_steps=1))  # the first call has one-off costs
            spent = []
            for few in (2, 6):
                started = time.perf_counter()
                (drawn,) = drawer.draw(replace(settings, num_inference_steps=few))
                spent.append(time.perf_counter() - started)
            per_step = max(spent[1] - spent[0], 0) / 4
            fixed = max(spent[0] - 2 * per_step, 0)
            if not isinstance(drawn, str):
                encoded = io.BytesIO()
                drawn.save(encoded, "PNG")
                size = encoded.tell()
        count += len(batch)
        steps += sum(task.settings.num_inference_steps for task in batch)
    seconds = count * fixed + steps * per_step
    return Estimate(output.planned, output.done, tuple(wrong), seconds, count * size, free_bytes(output.folder))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
