"""Captions with more tokens than AltCLIP was trained with: retrieval for each way to read them.

    python benchmarks/long_text.py [--judge emoji-m18] [--pictures 100]

The task is artificial. Each held-out picture of emoji-m18 has one true sentence among sixteen that fit no picture, with
at least 150 tokens in total. There is one line per way: R@1 in percent, compared with the true sentence alone.
"""

import argparse
import json
import random

import torch
from report import machine

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.names import read_dataset
from altdiffusion_clip.judges.dual import LONG_TEXT
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import embed_pictures
from altdiffusion_clip.judges.names import load_panel

BESIDE = [
    "It was taken on a day in early spring",
    "Somebody had left the window open",
    "The shop around the corner sells paper and ink",
    "Nobody has asked for the price yet",
    "On the other side of the river they are building a bridge",
    "",
]


def long_text(sentence: str, where: str, generator: random.Random) -> str:
    """A sentence among others."""
    others = [generator.choice(BESIDE).strip(". ") for _ in range(16)]
    place = {"first": 0, "middle": 8, "last": 16}[where]
    return ". ".join([*others[:place], sentence, *others[place:]]) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="emoji-m18")
    parser.add_argument("--pictures", type=int, default=100)
    options = parser.parse_args()
    task = read_dataset("emoji", languages=["en"])
    pictures, sentences = task.images[: options.pictures], task.languages["en"].texts[: options.pictures]
    vectors, right = None, torch.arange(len(pictures))
    for where in ("first", "middle", "last"):
        generator = random.Random(0)
        texts = [long_text(sentence, where, generator) for sentence in sentences]
        for way in LONG_TEXT:
            try:
                bench = Bench(load_panel(options.judge, long_text=way))
            except UserError as error:
                print(f"{way}: {error}")
                continue
            if vectors is None:
                found = embed_pictures(bench, pictures)
                vectors = torch.from_numpy(found.vectors)
            ours = bench.encoder.every_cosine(texts, vectors).argmax(1) == right
            alone = bench.encoder.every_cosine(sentences, vectors).argmax(1) == right
            line = {"name": f"long captions, the true sentence {where}, {way}", "unit": "R@1, percent"}
            line |= {"ours": round(100 * ours.float().mean().item(), 1)}
            line |= {"the_sentence_alone": round(100 * alone.float().mean().item(), 1), "machine": machine()}
            print(json.dumps(line))


if __name__ == "__main__":
    main()
