"""Training speed of AltCLIP's two stages, compared with plain loops on the same data and hardware.

Stage 1: sentences per second, compared with a loop that runs the teacher and pads every sentence to 77 tokens. Stage 2:
pairs per second from the second epoch on, compared with a loop that runs the frozen vision tower in every epoch and
pads captions in the same way. The towers have AltCLIP's widths (XLM-R large, CLIP ViT-L/14 at 224 pixels) and as many
layers as fit on a small machine. The sentences are emoji-m18's. On a GPU both sides compute in bfloat16 autocast.

    python benchmarks/training.py [--layers 4] [--rounds 3]
    python benchmarks/training.py --device cuda --layers 24 --batch 64
"""

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from report import report
from timing import Seconds, in_turns, ratio
from torch.nn import functional as F
from transformers import AltCLIPConfig, AutoTokenizer, CLIPTextConfig, CLIPTextModel

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import colours, concepts
from altdiffusion_clip.emoji.recipe import write_parallel
from altdiffusion_clip.prompts.windows import tokenize
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


def accelerator_for(device: str) -> Accelerator:
    is_cpu = device == "cpu"
    return Accelerator(cpu=is_cpu, mixed_precision="no" if is_cpu else "bf16")


def stage_1(layers: int, batch: int, rounds: int, device: str) -> Seconds:
    """Seconds per step of stage 1, for ours and the plain loop, on equal batches from the same sentences."""
    tokenizer = AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")
    reader = AutoTokenizer.from_pretrained(emoji_m18_folder() / "teacher")
    torch.manual_seed(0)
    teacher = CLIPTextModel(
        CLIPTextConfig(
            **TEACHER, num_hidden_layers=layers // 2, vocab_size=len(reader), eos_token_id=reader.eos_token_id
        )
    ).to(device)
    teacher.eval()
    config = RobertaSeriesConfig(
        **STUDENT,
        num_hidden_layers=layers,
        vocab_size=len(tokenizer),
        max_position_embeddings=514,
        project_dim=768,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    student = RobertaSeriesModelWithTransformation(config).train().to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, fused=True)
    accelerator = accelerator_for(device)
    turns = {side: itertools.count() for side in ("ours", "theirs")}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "parallel.jsonl"
        write_parallel(data)
        corpus = ParallelCorpus.prepare([data], tokenizer, Path(folder) / "corpus")
        embeds = embed_english(teacher, reader, corpus)
        source = Translations(corpus, embeds, batch, tokenizer.pad_token_id)
        task = PooledReading(student)

        def ours() -> None:
            part = on_device(source.load(source.draw(step_generator(0, next(turns["ours"])))), device)
            mean_loss(accelerator, task, [part])
            optimizer.step()
            optimizer.zero_grad()

        def theirs() -> None:
            rows = source.draw(step_generator(0, next(turns["theirs"])))["rows"]
            english = [corpus.english.text(int(row)) for row in corpus.target[rows.numpy()]]
            with torch.no_grad(), accelerator.autocast():
                target = teacher(*(t.to(device) for t in tokenize(reader, english, pad_to_max=True))).pooler_output
            said = tokenizer.batch_decode([corpus.tokens[row].tolist() for row in rows], skip_special_tokens=True)
            ids, mask = (t.to(device) for t in tokenize(tokenizer, said, pad_to_max=True))
            with accelerator.autocast():
                loss = F.mse_loss(unshortened(student, ids, mask), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return in_turns({"ours": ours, "theirs": theirs}, rounds, device)


def on_device(part: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in part.items()}


def unshortened(body: RobertaSeriesModelWithTransformation, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The pooled output without our short cut, with all 77 columns."""
    hidden = body.roberta(ids, attention_mask=mask).last_hidden_state
    assert body.pre_LN is not None
    return body.transformation(body.pre_LN(hidden))[:, 0]


def stage_2(layers: int, batch: int, rounds: int, device: str) -> Seconds:
    """Seconds per step of stage 2 from the second epoch on, for ours and a loop that runs the vision tower."""
    tokenizer = AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": layers, "project_dim": 768, "pad_token_id": 1}
    torch.manual_seed(0)
    scorer = AltCLIPScorer(
        AltCLIPConfig(
            text_config={**STUDENT, **text, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
            vision_config={**VISION, "num_hidden_layers": layers},
            projection_dim=768,
        )
    ).to(device)
    for part in (scorer.vision_model, scorer.visual_projection):
        part.requires_grad_(False)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    pixels = torch.randn(batch, 3, 224, 224, device=device)
    accelerator = accelerator_for(device)
    with torch.no_grad(), accelerator.autocast():
        features = scorer.get_image_features(pixels)  # belongs to the first epoch
    said = [captions(c, colours()[0], "zh")[0] for c in concepts()[:batch]]
    short, padded = (
        [t.to(device) for t in tokenize(tokenizer, said, pad_to_max=pad_to_max)] for pad_to_max in (False, True)
    )

    class Texts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = scorer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            embeds = self.scorer.get_text_features(input_ids, attention_mask)
            return {"text_embeds": embeds, "logit_scale": self.scorer.logit_scale}

    task = Texts()

    def ours() -> None:
        part = {"input_ids": short[0], "attention_mask": short[1], "image_embeds": features}
        cached_backward(accelerator, task, [part], info_nce, ("image_embeds",))
        optimizer.step()
        optimizer.zero_grad()

    def theirs() -> None:
        with torch.no_grad(), accelerator.autocast():
            images = scorer.get_image_features(pixels)
        with accelerator.autocast():
            texts = scorer.text_projection(unshortened(scorer.text_model, *padded))
        info_nce(texts.float(), images.float(), scorer.logit_scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    return in_turns({"ours": ours, "theirs": theirs}, rounds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--layers", type=int, default=4, help="of the student and the vision tower; 24 are the full ones"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for name, run, goal in (("stage 1", stage_1, 5.0), ("stage 2", stage_2, 10.0)):
        seconds = run(options.layers, options.batch, options.rounds, options.device)
        times, span = ratio(seconds, "theirs", "ours")
        unit = "sentences/s" if name == "stage 1" else "pairs/s"
        report(
            f"training-{name.replace(' ', '-')}",
            options.batch / statistics.median(seconds["ours"]),
            options.batch / statistics.median(seconds["theirs"]),
            unit,
            times,
            goal,
            range=span,
            layers=options.layers,
        )


if __name__ == "__main__":
    main()
