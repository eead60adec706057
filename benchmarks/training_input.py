"""Pictures per second that training reads from webdataset tars, compared with webdataset's plain loop; and memory.

Both decode, scale and crop the same JPEGs in the same number of workers. Ours includes the pass over the shards that
indexes the pictures. Then steps of emoji-m18's UNet on the tars' latents and captions are compared with steps on random
tensors in memory. Last comes the peak memory of reading captions and drawing batches, compared with a hundredth of
the pictures. Memory-mapped files do not count, because the system can reclaim their pages. It needs webdataset.

    python benchmarks/training_input.py [--pictures 3000] [--workers 2] [--steps 10] [--rows 1000000]
"""

import argparse
import io
import itertools
import json
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from PIL import Image
from report import report, report_at_most
from timing import Seconds, in_turns, ratio
from transformers import AutoTokenizer

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18, resolve
from altdiffusion_clip.emoji.architectures import new_scheduler, new_unet
from altdiffusion_clip.emoji.parts import PACKAGED
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.data.arrays import read_ahead
from altdiffusion_clip.training.data.image_text import CaptionedPictures, read_pixels
from altdiffusion_clip.training.diffusion import Denoiser, LatentsOfCaptions, embed_latents
from altdiffusion_clip.training.loop import mean_loss, step_generator

SIDE, BATCH, SHARD = 224, 64, 1000
UNET_BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="of the UNet; 0 leaves them away")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the memory; 0 leaves it away")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(measure_memory(options.memory_of)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = write_shards(folder, options.pictures, options.width)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        index: list[float] = []
        for number in range(options.rounds):
            spent, indexed = read_ours(shards, folder / f"index-{number}", options.workers)
            seconds["ours"].append(spent)
            index.append(indexed)
            seconds["theirs"].append(read_theirs(shards, options.workers))
        ours, theirs = (options.pictures / statistics.median(seconds[who]) for who in ("ours", "theirs"))
        report(
            "pictures from tars", ours, theirs, "pictures/s", ours / theirs, 0.95,
            workers=options.workers, index_seconds=round(statistics.median(index), 2), size=options.width,
        )  # fmt: skip
        if options.steps:
            steps = step_seconds(shards, folder / "steps", options.steps)
            times, span = ratio(steps, "random", "ours")
            ours, random = (UNET_BATCH / statistics.median(steps[side]) for side in ("ours", "random"))
            report("training steps, over random tensors", ours, random, "pictures/s", times, 0.95, range=span)
        if options.rows:
            few, many = (memory_of(folder, rows) for rows in (options.rows // 100, options.rows))
            report_at_most("memory of training's data", many["mb"], few["mb"], "MB", 1.25, rows=options.rows, **many)


def write_shards(folder: Path, pictures: int, width: int) -> list[str]:
    """Writes tars of JPEGs that are as hard to decode as photographs."""
    random = np.random.default_rng(0)
    shards = []
    for start in range(0, pictures, SHARD):
        shards.append(str(folder / f"{start // SHARD:04d}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for number in range(start, min(pictures, start + SHARD)):
                small = random.integers(0, 255, (width // 16, width * 3 // 64, 3), np.uint8)
                file = io.BytesIO()
                Image.fromarray(small).resize((width, width * 3 // 4), Image.Resampling.BICUBIC).save(file, "jpeg")
                for ending, data in (("jpg", file.getvalue()), ("txt", f"picture {number}".encode())):
                    member = tarfile.TarInfo(f"{number:08d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return shards


def read_ours(shards: list[str], folder: Path, workers: int) -> tuple[float, float]:
    """Seconds in total, and of the indexing pass."""
    tokenizer = AutoTokenizer.from_pretrained(Path(resolve(EMOJI_M18)) / "tokenizer")
    started = time.monotonic()
    pictures = CaptionedPictures.prepare(shards, SIDE, tokenizer, folder)
    indexed = time.monotonic() - started
    batches = [torch.arange(first, min(len(pictures), first + BATCH)) for first in range(0, len(pictures), BATCH)]
    seen = sum(int(read.sum()) for _, read in read_ahead(_Batches(pictures, batches), range(len(batches)), workers))
    assert seen == len(pictures)
    return time.monotonic() - started, indexed


class _Batches(torch.utils.data.Dataset):
    def __init__(self, pictures: CaptionedPictures, batches: list[torch.Tensor]) -> None:
        self._pictures, self._batches = pictures, batches

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return read_pixels(self._pictures, self._batches[number])


def read_theirs(shards: list[str], workers: int) -> float:
    """Seconds of webdataset's loop as in its documentation."""
    import webdataset

    def prepared(sample: tuple[Image.Image, str]) -> tuple[torch.Tensor, str]:
        # As in CLIP's own transform: scaled, then cropped.
        image = sample[0].convert("RGB")
        scale = SIDE / min(image.size)
        width, height = (round(length * scale) for length in image.size)
        left, top = (width - SIDE) // 2, (height - SIDE) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        return torch.from_numpy(np.asarray(image, np.uint8)).permute(2, 0, 1), sample[1]

    started = time.monotonic()
    data = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("jpg", "txt").map(prepared)
    loader = webdataset.WebLoader(data.batched(BATCH), batch_size=None, num_workers=workers)
    seen = sum(len(pixels) for pixels, _ in loader)
    assert seen >= len(shards)
    return time.monotonic() - started


def step_seconds(shards: list[str], folder: Path, steps: int) -> Seconds:
    """Seconds of training steps in turn: on precomputed latents with captions, and on random tensors in memory."""
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED / "tokenizer")
    pictures = CaptionedPictures.prepare(shards, RESOLUTION, tokenizer, folder)
    latents = embed_latents(AutoencoderKL.from_pretrained(PACKAGED / "vae", torch_dtype=torch.float32).eval(), pictures)
    empty = tokenizer("").input_ids
    source = LatentsOfCaptions(pictures, latents, UNET_BATCH, 1000, tokenizer.pad_token_id, empty)
    encoder = RobertaSeriesModelWithTransformation.from_pretrained(PACKAGED / "text_encoder", dtype=torch.float32)
    denoiser = Denoiser(new_unet(), new_scheduler(), Conditioning(encoder.eval(), tokenizer.pad_token_id))
    optimizer = torch.optim.AdamW(denoiser.unet.parameters(), lr=1e-5, fused=True)
    accelerator = Accelerator(cpu=True)
    numbers = itertools.count()

    def read() -> dict[str, torch.Tensor]:
        return source.load(source.draw(step_generator(0, next(numbers))))

    fixed = read()
    fixed["latents"] = torch.randn_like(fixed["latents"])

    def step(part: dict[str, torch.Tensor]) -> None:
        mean_loss(accelerator, denoiser, [part])
        optimizer.step()
        optimizer.zero_grad()

    return in_turns({"ours": lambda: step(read()), "random": lambda: step(fixed)}, steps, "cpu")


def memory_of(folder: Path, rows: int) -> dict[str, float]:
    """Measures in another process."""
    place = folder / f"rows-{rows}"
    place.mkdir()
    for number in range(100):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(place / f"{number}.png")
    with (place / "captions.jsonl").open("w") as file:
        for number in range(rows):
            said = {"en": f"picture {number} of a red thing", "zh": f"第{number}张图"}
            file.write(json.dumps({"image": f"{number % 100}.png", "captions": said}) + "\n")
    command = [sys.executable, __file__, "--memory-of", str(place)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return measured


def measure_memory(data: Path) -> dict[str, float]:
    """Peak megabytes of reading captions and drawing a thousand batches, and the seconds of reading."""
    tokenizer = AutoTokenizer.from_pretrained(Path(resolve(EMOJI_M18)) / "tokenizer")
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.partition("RssAnon:")[2].split()[0]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    pictures = CaptionedPictures.prepare([data], SIDE, tokenizer, data / "out")
    seconds = time.monotonic() - started
    for step in range(1000):
        _, said = pictures.draw(256, torch.Generator().manual_seed(step))
        pictures.tokenised(said, 1)
    done.set()
    watcher.join()
    return {
        "mb": round(peak[0], 1),
        "seconds": round(seconds, 1),
        "rows_a_second": round(len(pictures) / seconds),
    }


if __name__ == "__main__":
    main()
