"""Retrieval of 100,000 texts among 100,000 images, compared with bare matrix products: time and peak memory.

Both sides run in turns: only the products of the same tiles, and the whole measurement (ranks both ways, ties,
recalls). Vectors are random, with texts near their images, so that recalls are neither 0 nor 100. The bootstrap is
timed separately, because it does not depend on the width and hardly on the number of candidates.

    python benchmarks/retrieval.py [--texts 100000] [--images 100000] [--dim 768] [--rounds 3] [--device cpu]
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import torch
from report import report_at_most
from timing import in_turns, ratio

from altdiffusion_clip.evaluation.ranks import Ranks, ranks_of_embeddings, tile_for
from altdiffusion_clip.evaluation.retrieval import intervals, retrieval_of_ranks

LIMIT = 4e9


def unit_vectors(count: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=-1)


def bare(texts: torch.Tensor, images: torch.Tensor) -> None:
    """The matrix products of the measurement's tiles."""
    tile = tile_for(texts.device)
    out = torch.empty(tile[0] * tile[1], device=texts.device)
    for rows in texts.split(tile[0]):
        for columns in images.split(tile[1]):
            torch.mm(rows, columns.T, out=out[: len(rows) * len(columns)].view(len(rows), len(columns)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    images = unit_vectors(options.images, options.dim, 0)
    of = torch.arange(options.texts) % options.images
    texts = unit_vectors(options.texts, options.dim, 1).mul_(5.5).add_(images[of])
    texts = torch.nn.functional.normalize(texts, dim=-1).to(options.device)
    images = images.to(options.device)
    pairs = np.stack([np.arange(options.texts), of.numpy()], 1)

    found: list[Ranks] = []
    sides = {
        "products": lambda: bare(texts, images),
        "whole measure": lambda: found.append(ranks_of_embeddings(texts, images, pairs)),
    }
    # On a CPU a round takes minutes, so warming up does not matter.
    seconds = in_turns(sides, options.rounds, options.device, warm_up=options.device != "cpu")
    ranks = found[-1]
    figures = retrieval_of_ranks(ranks)
    start = time.perf_counter()
    intervals(ranks, pairs)
    bootstrap = time.perf_counter() - start
    if options.device == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        peak = torch.cuda.max_memory_allocated(options.device)
    print(json.dumps({**{key: round(value, 2) for key, value in figures.as_dict().items()}, "unit": "percent"}))
    memory = {"name": "retrieval, peak memory", "bytes": peak, "goal": LIMIT, "holds": peak <= LIMIT}
    print(json.dumps({**memory, "bootstrap_s": round(bootstrap, 2)}))
    times, span = ratio(seconds, "whole measure", "products")
    report_at_most(
        "retrieval",
        statistics.median(seconds["whole measure"]),
        statistics.median(seconds["products"]),
        "s",
        1.3,
        texts=options.texts,
        images=options.images,
        ratio_of_rounds=times,
        range=span,
    )


if __name__ == "__main__":
    main()
