"""The sides of a benchmark, timed in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Seconds = dict[str, list[float]]


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", warm_up: bool = True
) -> Seconds:
    """Seconds of each side in rounds of all of them, by name.

    Who is first changes from round to round, for it finds other caches. A round before, to warm up, does not count.
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
    """Of two sides, the median of the rounds' ratios, and the least and the largest of them."""
    ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    return round(statistics.median(ratios), 4), [round(min(ratios), 3), round(max(ratios), 3)]
