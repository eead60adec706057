"""Times the sides of a benchmark in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Seconds = dict[str, list[float]]


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", warm_up: bool = True
) -> Seconds:
    """Runs all sides in rounds, and returns the seconds of each by name.

    The order rotates, because caches differ for the first. A warm-up round is not counted.
    """
    names = list(sides)
    seconds: Seconds = {name: [] for name in names}
    for number in range(1 - warm_up, rounds + 1):
        turn = number % len(names)
        spent = {}
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            sides[name]()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            spent[name] = time.perf_counter() - start
            if number:
                seconds[name].append(spent[name])
        said = ", ".join(f"{name} {spent[name]:.3g} s" for name in names)
        print(f"{f'round {number}' if number else 'warming up'}: {said}", flush=True)
    return seconds


def ratio(seconds: Seconds, above: str, below: str) -> tuple[float, list[float]]:
    """The median, smallest and largest ratio of two sides over the rounds."""
    ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    return round(statistics.median(ratios), 4), [round(min(ratios), 3), round(max(ratios), 3)]
