"""Pictures scored a second, file to score, against a straight loop over transformers' AltCLIPModel.

    python benchmarks/scoring.py [--pictures 256] [--rounds 3] [--device cpu]

JPEGs of 1024x768 with one prompt. AltCLIP's full size (ViT-L/14 and XLM-R large) with random weights, the same in both.
Theirs: the processor and the model on batches of 16, in their default dtype, float32. Ours: what `altdiffusion score`
does with its defaults (decoding in workers, drafts of large JPEGs, the arithmetic and the batch size that are fastest
here). On a GPU a second line compares with the bare vision tower on tensors that are there already, in the same dtype.
Rounds alternate; medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from full_size import SIZES, randomise
from PIL import Image
from report import has_bf16, report
from transformers import AltCLIPConfig, AltCLIPModel, AltCLIPProcessor, CLIPImageProcessor, XLMRobertaTokenizer
from transformers.initialization import no_init_weights

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.bulk.pictures import Workers, default_workers
from altdiffusion_clip.bulk.rows import Located, Row
from altdiffusion_clip.bulk.scoring import Encoder, fastest_batch_size, fastest_dtype, score_rows
from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder

PROMPT = "蓝色背景上的猫"
BATCH = 16


def make_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs with as much in them as photographs have: noise of several scales."""
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


def models() -> tuple[AltCLIPScorer, AltCLIPModel, AltCLIPProcessor]:
    config = AltCLIPConfig(**read_json(SIZES / "scorer" / "config.json"))
    image_processor = CLIPImageProcessor(**read_json(SIZES / "scorer" / "preprocessor_config.json"))
    tokenizer = XLMRobertaTokenizer.from_pretrained(emoji_m9_folder() / "tokenizer", model_max_length=77)
    with no_init_weights():
        theirs, ours = AltCLIPModel(config), AltCLIPScorer(config)
    torch.manual_seed(0)
    randomise(theirs)
    # Copies, since ours goes to another dtype in place.
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
def bare_tower(encoder: Encoder, count: int) -> float:
    """Seconds of the vision tower and its projection on tensors that are there."""
    side = encoder.scorer.config.vision_config.image_size
    pixels = torch.randn(encoder.batch_size, 3, side, side, device=encoder.scorer.device, dtype=encoder.dtype)
    start = time.perf_counter()
    for _ in range(-(-count // encoder.batch_size)):
        encoder.scorer.get_image_features(pixels)
    if pixels.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * count / (encoder.batch_size * -(-count // encoder.batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    is_gpu = options.device != "cpu"
    ours, theirs, processor = models()
    ours, theirs = ours.to(options.device), theirs.to(options.device)
    encoder = Encoder(ours, fastest_dtype(ours))
    encoder.batch_size = fastest_batch_size(encoder)
    workers = Workers(encoder.image_processor, default_workers())
    print(f"ours in {encoder.dtype}, {encoder.batch_size} pictures at a time", flush=True)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = make_pictures(Path(folder), options.pictures)
        rows = [Row(path.name, Located(str(path)), PROMPT) for path in paths]
        score_rows(rows[:BATCH], [encoder], workers)
        straight_loop(theirs, processor, paths[:BATCH])
        for number in range(options.rounds):
            start = time.perf_counter()
            scored = score_rows(rows, [encoder], workers)
            seconds["ours"].append(time.perf_counter() - start)
            start = time.perf_counter()
            expected = straight_loop(theirs, processor, paths)
            seconds["theirs"].append(time.perf_counter() - start)
            if is_gpu:
                seconds["bare"].append(bare_tower(encoder, len(paths)))
            spent = {name: round(values[-1], 1) for name, values in seconds.items() if values}
            print(f"round {number + 1}: {spent} s", flush=True)
    workers.close()
    difference = max(abs(float(b) - (a.cosine or 0.0)) for a, b in zip(scored, expected, strict=True))

    def line(name: str, against: str, goal: float) -> None:
        shares = [b / a for a, b in zip(seconds["ours"], seconds[against], strict=True)]
        rates = {side: options.pictures / statistics.median(seconds[side]) for side in ("ours", against)}
        report(
            name,
            rates["ours"],
            rates[against],
            "pictures a second",
            statistics.median(shares),
            goal,
            range=[round(min(shares), 2), round(max(shares), 2)],
            largest_difference_of_cosines=round(difference, 5),
        )

    line(f"scoring {options.pictures} JPEGs", "theirs", 4.0 if is_gpu else 3.0 if has_bf16() else 1.0)
    if is_gpu:
        line(f"scoring {options.pictures} JPEGs, of the bare tower's rate", "bare", 0.85)


if __name__ == "__main__":
    main()
