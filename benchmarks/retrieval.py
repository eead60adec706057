"""Retrieval of 100,000 texts among 100,000 images, against the bare matrix products: time and peak memory.

Both sides in turns: the products of the same tiles and nothing else, and the whole measure (ranks both ways, ties,
recalls). Vectors are random with a text near its image, so that recalls are neither 0 nor 100. The bootstrap of the
intervals, whose time does not depend on the width and hardly on the number of candidates, is timed apart.

    python benchmarks/retrieval.py [--texts 100000] [--images 100000] [--dim 768] [--rounds 3]
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import torch
from report import report_at_most

from altdiffusion_clip.evaluation.ranks import _TILE, ranks_of_embeddings
from altdiffusion_clip.evaluation.retrieval import intervals, retrieval_of_ranks

LIMIT = 4e9


def unit_vectors(count: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def bare(texts: torch.Tensor, images: torch.Tensor) -> float:
    """Seconds of the matrix products in the tiles that the measure takes."""
    start = time.perf_counter()
    out = torch.empty(_TILE[0] * _TILE[1])
    for rows in texts.split(_TILE[0]):
        for columns in images.split(_TILE[1]):
            torch.mm(rows, columns.T, out=out[: len(rows) * len(columns)].view(len(rows), len(columns)))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images = unit_vectors(options.images, options.dim, 0)
    of = torch.arange(options.texts) % options.images
    texts = unit_vectors(options.texts, options.dim, 1).mul_(5.5).add_(images[of])
    texts = torch.nn.functional.normalize(texts, dim=-1)
    pairs = np.stack([np.arange(options.texts), of.numpy()], 1)

    ours, theirs = [], []
    for number in range(options.rounds):
        theirs.append(bare(texts, images))
        start = time.perf_counter()
        ranks = ranks_of_embeddings(texts, images, pairs)
        ours.append(time.perf_counter() - start)
        print(f"round {number + 1}: products {theirs[-1]:.1f} s, whole measure {ours[-1]:.1f} s", flush=True)
    figures = retrieval_of_ranks(ranks)
    start = time.perf_counter()
    intervals(ranks, pairs)
    bootstrap = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**{key: round(value, 2) for key, value in figures.as_dict().items()}, "unit": "percent"}))
    print(json.dumps({"peak_resident_bytes": peak, "goal": LIMIT, "holds": peak <= LIMIT, "bootstrap_s": bootstrap}))
    shares = [a / b for a, b in zip(ours, theirs, strict=True)]
    report_at_most(
        "retrieval",
        statistics.median(ours),
        statistics.median(theirs),
        "s",
        1.3,
        texts=options.texts,
        images=options.images,
        range=[round(min(shares), 3), round(max(shares), 3)],
    )


if __name__ == "__main__":
    main()
