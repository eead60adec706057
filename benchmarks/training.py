"""Training speed of both stages of AltCLIP, against the plain loop, on the same data and hardware.

Stage 1: sentences a second, against a loop with the teacher in it and every sentence padded to 77 tokens. Stage 2:
pairs a second from the second epoch on, against a loop that runs the frozen vision tower in every epoch, its captions
padded likewise. The towers have the widths of AltCLIP (XLM-R large, CLIP ViT-L/14 at 224 pixels), cut to so many
layers as fit a small machine; the sentences are emoji-m9's.

    python benchmarks/training.py [--layers 4] [--rounds 3]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from report import report
from torch.nn import functional as F
from transformers import AltCLIPConfig, AutoTokenizer, CLIPTextConfig, CLIPTextModel

from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, colours, concepts
from altdiffusion_clip.emoji.data import write_parallel
from altdiffusion_clip.prompts import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.data.parallel import ParallelCorpus
from altdiffusion_clip.training.distill import PooledReading, Translations, embed_english
from altdiffusion_clip.training.grad_cache import cached_backward
from altdiffusion_clip.training.loop import mean_loss, step_generator
from altdiffusion_clip.training.losses import info_nce

STUDENT = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
TEACHER = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}


def in_turns(ours: Callable[[int], None], theirs: Callable[[int], None], rounds: int) -> tuple[float, float]:
    """Median seconds of each, measured in turns after one round that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for step, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            step(number)
            if number:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def stage_1(layers: int, batch: int, rounds: int) -> tuple[float, float]:
    """Seconds of a step of stage 1, ours and the plain loop's, on batches of the same size from the same sentences."""
    tokenizer = AutoTokenizer.from_pretrained(emoji_m9_folder() / "tokenizer")
    reader = AutoTokenizer.from_pretrained(emoji_m9_folder() / "teacher")
    torch.manual_seed(0)
    teacher = CLIPTextModel(
        CLIPTextConfig(
            **TEACHER, num_hidden_layers=layers // 2, vocab_size=len(reader), eos_token_id=reader.eos_token_id
        )
    ).eval()
    config = RobertaSeriesConfig(
        **STUDENT,
        num_hidden_layers=layers,
        vocab_size=len(tokenizer),
        max_position_embeddings=514,
        project_dim=768,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    student = RobertaSeriesModelWithTransformation(config).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
    accelerator = Accelerator()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "parallel.jsonl"
        write_parallel(data, LANGUAGES, scenes=False)
        corpus = ParallelCorpus.prepare([data], tokenizer, Path(folder) / "corpus")
        embeds = embed_english(teacher, reader, corpus)
        source = Translations(corpus, embeds, batch, tokenizer.pad_token_id)
        task = PooledReading(student)

        def ours(number: int) -> None:
            part = source.load(source.draw(step_generator(0, number)))
            mean_loss(accelerator, task, [part])
            optimizer.step()
            optimizer.zero_grad()

        def theirs(number: int) -> None:
            rows = source.draw(step_generator(0, number))["rows"]
            english = [corpus.english.text(int(row)) for row in corpus.target[rows.numpy()]]
            with torch.no_grad():
                target = teacher(*tokenize(reader, english, pad_to_max=True)).pooler_output
            said = tokenizer.batch_decode([corpus.tokens[row].tolist() for row in rows], skip_special_tokens=True)
            ids, mask = tokenize(tokenizer, said, pad_to_max=True)
            # The model as it would run without our short cut: all 77 columns, padding among them.
            hidden = student.roberta(ids, attention_mask=mask).last_hidden_state
            assert student.pre_LN is not None
            pooled = student.transformation(student.pre_LN(hidden))[:, 0]
            F.mse_loss(pooled, target).backward()
            optimizer.step()
            optimizer.zero_grad()

        return in_turns(ours, theirs, rounds)


def stage_2(layers: int, batch: int, rounds: int) -> tuple[float, float]:
    """Seconds of a step of stage 2 from the second epoch on, ours and that of a loop with the vision tower in it."""
    tokenizer = AutoTokenizer.from_pretrained(emoji_m9_folder() / "tokenizer")
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": layers, "project_dim": 768, "pad_token_id": 1}
    torch.manual_seed(0)
    scorer = AltCLIPScorer(
        AltCLIPConfig(
            text_config={**STUDENT, **text, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
            vision_config={**VISION, "num_hidden_layers": layers},
            projection_dim=768,
        )
    )
    for part in (scorer.vision_model, scorer.visual_projection):
        part.requires_grad_(False)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    pixels = torch.randn(batch, 3, 224, 224)
    with torch.no_grad():
        features = scorer.get_image_features(pixels)  # the first epoch's
    said = [captions(c, colours()[0], "zh")[0] for c in concepts()[:batch]]
    short, padded = tokenize(tokenizer, said), tokenize(tokenizer, said, pad_to_max=True)
    accelerator = Accelerator()

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = scorer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            embeds = self.scorer.get_text_features(input_ids, attention_mask)
            return {"text_embeds": embeds, "logit_scale": self.scorer.logit_scale}

    task = Texts()

    def ours(number: int) -> None:
        part = {"input_ids": short[0], "attention_mask": short[1], "image_embeds": features}
        cached_backward(accelerator, task, [part], info_nce, ("image_embeds",))
        optimizer.step()
        optimizer.zero_grad()

    def theirs(number: int) -> None:
        with torch.no_grad():
            images = scorer.get_image_features(pixels)
        body = scorer.text_model
        hidden = body.roberta(padded[0], attention_mask=padded[1]).last_hidden_state
        assert body.pre_LN is not None
        texts = scorer.text_projection(body.transformation(body.pre_LN(hidden))[:, 0])
        info_nce(texts, images, scorer.logit_scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    return in_turns(ours, theirs, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--layers", type=int, default=4, help="of the student and the vision tower; 24 are the full ones"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name, run, goal in (("stage 1", stage_1, 5.0), ("stage 2", stage_2, 10.0)):
        ours, theirs = run(options.layers, options.batch, options.rounds)
        print(f"{name}: {ours:.2f} s a step of {options.batch}, {theirs:.2f} s in the plain loop")
        unit = "sentences/s" if name == "stage 1" else "pairs/s"
        report(
            f"training-{name.replace(' ', '-')}",
            options.batch / ours,
            options.batch / theirs,
            unit,
            theirs / ours,
            goal,
        )


if __name__ == "__main__":
    main()
