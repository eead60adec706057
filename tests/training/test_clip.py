from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPModel

from altdiffusion_clip.training.clip import train_clip
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.metrics import read_metrics
from tests.training.worlds import write_pictures, write_teacher


def test_a_clip_learns_pairs_whatever_the_parts(tmp_path: Path) -> None:
    teacher = write_teacher(tmp_path / "teacher")
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    data = [write_pictures(tmp_path / "pictures", ("en",))]
    pictures = CaptionedPictures.prepare(data, 16, tokenizer, tmp_path / "data")
    plain = RunConfig(
        output=tmp_path / "a", steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5, log_every=1, cpu=True
    )
    parts = replace(plain, output=tmp_path / "b", steps=60, gradient_accumulation_steps=4)
    for config in (plain, parts):
        train_clip(CLIPModel.from_pretrained(teacher), pictures, config)
    losses = [[line["loss"] for line in read_metrics(config.output)] for config in (plain, parts)]
    assert sum(losses[0][-10:]) < 0.8 * sum(losses[0][:10])
    torch.testing.assert_close(*(torch.tensor(loss[:10]) for loss in losses), atol=1e-4, rtol=0)
