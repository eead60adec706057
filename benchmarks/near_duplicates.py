"""Near duplicates among pictures: the index of `altdiffusion filter` compared with exact comparison.

    python benchmarks/near_duplicates.py [--pictures 300000] [--dim 128]

Vectors and scores are made up, in groups. The filter uses the index for many pictures, and exact comparison for few.
The line also reports how many pictures only one of the two rejects.
"""

import argparse
import time

import numpy as np
from report import report

from altdiffusion_clip.bulk import near_duplicates as module

LEAST = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=128)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(options.pictures // 3, options.dim)).astype(np.float32)
    vectors = centres[generator.integers(0, len(centres), options.pictures)]
    vectors += 0.15 * generator.normal(size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = generator.random(options.pictures)
    parts = [
        module.Pictured(
            [str(place) for place in places],
            scores[places],
            [str(place) for place in places],
            {str(place): vectors[place] for place in places},
        )
        for places in np.array_split(np.arange(options.pictures), 20)
    ]
    found, seconds = [], []
    for exact in (0, options.pictures):
        module.EXACT = exact
        started = time.perf_counter()
        found.append({int(row) for row in module.near_duplicates(parts, LEAST)})
        seconds.append(time.perf_counter() - started)
    report(
        "near duplicates", options.pictures / seconds[0], options.pictures / seconds[1], "pictures/s",
        seconds[1] / seconds[0], 1.0, rejected=len(found[1]), of_one_alone=len(found[0] ^ found[1]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
