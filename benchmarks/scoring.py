"""Pictures scored per second, from file to score, compared with a plain loop over transformers' AltCLIPModel.

    python benchmarks/scoring.py [--pictures 256] [--rounds 3] [--device cpu] [--many 4096]

The pictures are JPEGs of 1024x768 with one prompt. Both sides have AltCLIP's full size (ViT-L/14 and XLM-R large) and
the same random weights. Theirs runs the processor and the model on batches of 16 in their default float32. Ours does
what `altdiffusion score` does by default (decoding in workers, drafts of large JPEGs, the fastest dtype and batch
size). Rounds alternate. Figures are medians.

On a GPU, two more lines compare with the bare vision tower on prepared tensors in the same dtype: for the same
pictures, and for `--many`, because with a few hundred, much of the time is the wait for the first batch. They also
report how many pictures per second the workers alone can prepare, which is the upper limit.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from full_size import SIZES, randomise
from PIL import Image
from report import has_bf16, report
from timing import Seconds, in_turns, ratio
from transformers import AltCLIPConfig, AltCLIPModel, AltCLIPProcessor, CLIPImageProcessor, XLMRobertaTokenizer
from transformers.initialization import no_init_weights

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.encoding import Bench, fastest_batch_size, fastest_dtype
from altdiffusion_clip.judges.judging import judge_rows
from altdiffusion_clip.judges.pictures import Workers, default_workers
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.row import Row

PROMPT = "蓝色背景上的猫"
BATCH = 16


def make_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs with as much detail as photographs: noise at several scales."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        picture = np.zeros((768, 1024, 3), np.float32)
        for scale in (4, 16, 64):
            small = generator.normal(0, 40, (768 // scale, 1024 // scale, 3)).astype(np.float32)
            layers = [Image.fromarray(small[..., c]).resize((1024, 768), Image.Resampling.BICUBIC) for c in range(3)]
            picture += np.stack([np.asarray(layer) for layer in layers], -1)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray((picture + 128).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def many_of(paths: list[Path], folder: Path, count: int) -> list[Path]:
    """Copies with different trailing bytes, so that each counts as another picture."""
    copies = []
    for number in range(count):
        copies.append(folder / f"copy-{number}.jpg")
        copies[-1].write_bytes(paths[number % len(paths)].read_bytes() + number.to_bytes(4, "big"))
    return copies


def models() -> tuple[AltCLIPScorer, AltCLIPModel, AltCLIPProcessor]:
    config = AltCLIPConfig(**read_json(SIZES / "scorer" / "config.json"))
    image_processor = CLIPImageProcessor(**read_json(SIZES / "scorer" / "preprocessor_config.json"))
    tokenizer = XLMRobertaTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer", model_max_length=77)
    with no_init_weights():
        theirs, ours = AltCLIPModel(config), AltCLIPScorer(config)
    torch.manual_seed(0)
    randomise(theirs)
    # A copy, because ours changes its dtype in place.
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if "pooler" not in k}, strict=False)
    ours.processor = AltCLIPProcessor(image_processor, tokenizer)
    return ours.eval(), theirs.eval(), ours.processor


@torch.inference_mode()
def straight_loop(model: AltCLIPModel, processor: AltCLIPProcessor, paths: list[Path]) -> torch.Tensor:
    cosines = []
    for start in range(0, len(paths), BATCH):
        images = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
        inputs = processor(text=[PROMPT], images=images, return_tensors="pt", padding=True).to(model.device)
        cosines.append(model(**inputs).logits_per_image[:, 0] / model.logit_scale.exp())
    return torch.cat(cosines).cpu()


@torch.inference_mode()
def bare_tower(scorer: AltCLIPScorer, batch_size: int, count: int) -> None:
    """The vision tower and its projection on prepared tensors."""
    side = scorer.config.vision_config.image_size
    pixels = torch.zeros(batch_size, 3, side, side, device=scorer.device, dtype=scorer.dtype)
    for start in range(0, count, batch_size):
        scorer.get_image_features(pixels[: count - start])


class Ours:
    """Scores as `altdiffusion score` does by default."""

    def __init__(self, scorer: AltCLIPScorer) -> None:
        judge = AltCLIPJudge(scorer)
        judge.to(judge.device, fastest_dtype(judge))
        self.bench = Bench.of(judge, fastest_batch_size(judge))
        self.count = default_workers(scorer.device.type != "cpu")
        self.workers = Workers(self.bench.preparation(), self.count)

    def score(self, paths: list[Path]) -> list[float]:
        rows = [Row(path.name, Located(str(path)), PROMPT) for path in paths]
        return [each.scores[0] for each in judge_rows(rows, [self.bench], self.workers)[1]]

    def prepare(self, paths: list[Path]) -> None:
        for _ in self.workers.prepare([Located(str(path)) for path in paths]):
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--many", type=int, default=4096, help="on a GPU, beside the bare tower")
    options = parser.parse_args()
    is_gpu = options.device != "cpu"
    scorer, theirs, processor = models()
    theirs = theirs.to(options.device)
    ours = Ours(scorer.to(options.device))
    size = ours.bench.batch_size
    print(f"ours in {scorer.dtype}, {size} at a time, {ours.count} workers", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), options.pictures)
        ours.score(paths[: 2 * BATCH])
        straight_loop(theirs, processor, paths[:BATCH])
        cosines: dict[str, list[float]] = {}
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: cosines.update(ours=ours.score(paths)),
            "theirs": lambda: cosines.update(theirs=straight_loop(theirs, processor, paths).tolist()),
            "preparing": lambda: ours.prepare(paths),
        }
        name = f"scoring {len(paths)} JPEGs"
        if is_gpu:
            sides["bare"] = lambda: bare_tower(scorer, size, len(paths))
        seconds = in_turns(sides, options.rounds, options.device, warm_up=False)
        difference = max(abs(a - b) for a, b in zip(cosines["ours"], cosines["theirs"], strict=True))
        goal = 4.0 if is_gpu else 3.0 if has_bf16() else 0.9
        line(name, len(paths), seconds, "theirs", goal, largest_difference_of_cosines=round(difference, 5))
        if is_gpu:
            line(f"{name}, of the bare tower's rate", len(paths), seconds, "bare", 0.85)
            many = many_of(paths, Path(folder), options.many)
            sides = {
                "ours": lambda: ours.score(many),
                "bare": lambda: bare_tower(scorer, size, len(many)),
                "preparing": lambda: ours.prepare(many),
            }
            seconds = in_turns(sides, options.rounds, options.device, warm_up=False)
            line(f"scoring {len(many)} JPEGs, of the bare tower's rate", len(many), seconds, "bare", 0.85)
    ours.workers.close()


def line(name: str, count: int, seconds: Seconds, against: str, goal: float, **more: object) -> None:
    median, span = ratio(seconds, against, "ours")
    rates = {side: count / statistics.median(values) for side, values in seconds.items()}
    report(
        name,
        rates["ours"],
        rates[against],
        "pictures a second",
        median,
        goal,
        range=span,
        prepared_a_second=round(rates["preparing"], 1),
        **more,
    )


if __name__ == "__main__":
    main()
