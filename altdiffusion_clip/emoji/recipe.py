"""Makes emoji-m9: every stage from the font to the finished folder, with this project's own programs.

It follows AltDiffusion: an English CLIP; an English diffusion model on it; a student that learns nine languages in
stages 1 and 2; and the English model's UNet, aligned to the student.

Run it with ``make emoji-m9``. Each stage writes a checkpoint every minute and continues from it, so the command can be
stopped at any moment and run again. Finished stages are skipped.
"""

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from altdiffusion_clip.checkpoints.model_ids import SCORER, emoji_m9_folder
from altdiffusion_clip.emoji.architectures import (
    image_processor,
    new_student_config,
    new_teacher,
    new_unet,
    new_vae,
)
from altdiffusion_clip.emoji.concepts import LANGUAGES
from altdiffusion_clip.emoji.data import PARALLEL_FILE, sentences, shown_in_pictures, write_data, write_scenes
from altdiffusion_clip.emoji.held_out import held_out_pictures, write_held_out
from altdiffusion_clip.emoji.recogniser import Recogniser
from altdiffusion_clip.emoji.recogniser_training import train_recogniser
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji_m18.architectures import new_scheduler
from altdiffusion_clip.emoji_m18.tokenizers import cldr_names, train_clip_tokenizer, train_xlmr_tokenizer
from altdiffusion_clip.files import atomic_folder
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.clip import train_clip
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import AlignConfig, ContrastiveConfig, DistillConfig
from altdiffusion_clip.training.contrastive import contrastive
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.distill import distill
from altdiffusion_clip.training.loop import Stopped
from altdiffusion_clip.training.models import MODEL
from altdiffusion_clip.training.vae import psnr, train_vae

logger = logging.getLogger(__name__)
GUIDANCE = 3.0
Changes = dict[str, Any]
"""Settings that override a stage's own: to stop in time, or to try it for a few steps."""


def english_pictures(work: Path, run: Path) -> tuple[CLIPTokenizer, CaptionedPictures]:
    """Makes the English teacher's tokenizer, and all pictures with tokenised captions."""
    tokenizer = train_clip_tokenizer(sentences(("en",)), vocab_size=1024)
    data = [work / "data"]
    return tokenizer, CaptionedPictures.prepare(data, RESOLUTION, tokenizer, run / "data", languages=["en"])


def vae_stage(work: Path, changes: Changes) -> None:
    """Trains on small crops first, because many small steps beat a few large ones, then on whole pictures."""
    run = work / "vae"
    _, pictures = english_pictures(work, run)
    torch.manual_seed(0)
    vae = new_vae()
    common: dict[str, Any] = {"output": run, "weight_decay": 0.0, "log_every": 100}
    config = RunConfig(**common, batch_size=16, steps=6000, learning_rate=1.5e-3, warmup_steps=100, decay_from=0.7)
    train_vae(vae, pictures, replace(config, **changes), crop=RESOLUTION // 2, folder=run / "crops")
    config = RunConfig(**common, batch_size=8, steps=2500, learning_rate=1e-3, warmup_steps=50, ema_decay=0.995)
    vae = train_vae(vae, pictures, replace(config, **changes), folder=run / "whole")
    logger.info("VAE: %.1f dB", psnr(vae, signed(pictures.pixels_of(torch.arange(0, len(pictures), 100)))))
    with atomic_folder(run / MODEL) as folder:
        vae.save_pretrained(folder)


def teacher_stage(work: Path, changes: Changes) -> None:
    """Trains an English-only CLIP, with an English tokenizer and English captions."""
    run = work / "teacher"
    tokenizer, pictures = english_pictures(work, run)
    torch.manual_seed(0)
    config = RunConfig(
        output=run,
        batch_size=64,
        steps=2500,
        learning_rate=1e-3,
        warmup_steps=200,
        weight_decay=0.05,
    )
    teacher = train_clip(new_teacher(tokenizer), pictures, replace(config, **changes))
    with atomic_folder(run / MODEL) as folder:
        teacher.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        image_processor().save_pretrained(folder)


def write_untrained(folder: Path, vae: Path, teacher: Path) -> None:
    """Writes a Stable Diffusion from a finished autoencoder, a CLIP's text tower and an untrained UNet."""
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        text_encoder=CLIPTextModel.from_pretrained(teacher, dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(teacher),
        unet=new_unet(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)


def english_stage(work: Path, changes: Changes) -> None:
    """Trains an English diffusion model on the teacher's text tower: what Stable Diffusion was to AltDiffusion."""
    untrained = work / "english" / "untrained"
    if not untrained.exists():
        write_untrained(untrained, work / "vae" / MODEL, work / "teacher" / MODEL)
    config = AlignConfig(
        output=work / "english",
        model=str(untrained),
        data=[work / "data"],
        languages=["en"],
        steps=6000,
        batch_size=16,
        learning_rate=6e-4,
        warmup_steps=200,
        decay_from=0.6,
        ema_decay=0.999,
        validate_every=2000,
        sample_prompts=["a cat on a blue background", "red apple", "a cat on the left and a dog on the right"],
        sample_guidance=GUIDANCE,
    )
    align(replace(config, **changes))


def distill_stage(work: Path, changes: Changes) -> None:
    """Stage 1: the student in nine languages learns the teacher's English."""
    student = work / "distill" / "untrained"
    if not student.exists():
        # XLM-R's tokenizer knows more languages than its student learns. This one knows German as well.
        said = [*sentences(LANGUAGES)[::2], *cldr_names((*LANGUAGES, "de"))]
        with atomic_folder(student) as folder:
            tokenizer = train_xlmr_tokenizer(said, folder, vocab_size=4000)
            new_student_config(tokenizer).save_pretrained(folder)
    config = DistillConfig(
        output=work / "distill",
        teacher=str(work / "teacher" / MODEL),
        student=str(student),
        data=[work / "data" / PARALLEL_FILE],
        languages=list(LANGUAGES),
        steps=4000,
        batch_size=128,
        learning_rate=5e-4,
        warmup_steps=300,
    )
    distill(replace(config, **changes))


def contrastive_stage(work: Path, changes: Changes) -> None:
    """Stage 2: the student's captions against pictures, with the teacher's frozen vision tower."""
    config = ContrastiveConfig(
        output=work / "contrastive",
        student=str(work / "distill" / MODEL),
        teacher=str(work / "teacher" / MODEL),
        data=[work / "data"],
        languages=list(LANGUAGES),
        steps=800,
        batch_size=128,
        learning_rate=1e-4,
        warmup_steps=100,
    )
    contrastive(replace(config, **changes))


def align_stage(work: Path, changes: Changes) -> None:
    """Aligns the English model's UNet to the frozen student's conditioning in all nine languages."""
    config = AlignConfig(
        output=work / "align",
        model=str(work / "english" / MODEL),
        text_encoder=str(work / "contrastive" / MODEL),
        data=[work / "data"],
        languages=list(LANGUAGES),
        weights={"en": 2.0},
        keys_and_values_steps=min(1000, changes.get("steps", 1000)),
        steps=14000,
        batch_size=16,
        learning_rate=8e-4,
        warmup_steps=100,
        decay_from=0.6,
        ema_decay=0.999,
        validate_every=2000,
        sample_prompts=["蓝色背景上的猫", "яблоко", "左边是猫,右边是狗", "a red apple"],
        sample_guidance=GUIDANCE,
    )
    align(replace(config, **changes))


def scenes_stage(work: Path, changes: Changes) -> None:
    """Teaches the aligned UNet which half of a scene is which, from more scenes, without forgetting the rest."""
    config = AlignConfig(
        output=work / "scenes",
        model=str(work / "align" / MODEL),
        data=[work / "data", write_scenes(work / "more-scenes")],
        languages=list(LANGUAGES),
        weights={"en": 2.0},
        keys_and_values_steps=0,
        steps=10000,
        batch_size=16,
        learning_rate=8e-4,
        warmup_steps=100,
        decay_from=0.4,
        ema_decay=0.999,
        validate_every=2000,
        sample_prompts=[
            "蓝色背景上的猫",
            "左边是猫,右边是狗",
            "a red apple and a fish",
            "a cat on the left and a dog on the right",
        ],
        sample_guidance=GUIDANCE,
    )
    align(replace(config, **changes))


def recogniser_stage(work: Path, changes: Changes) -> None:
    """Trains the classifier that names what pictures show, and draws the held-out renders that it is measured on."""
    run = work / "recogniser"
    write_held_out()
    _, pictures = english_pictures(work, run)
    config = RunConfig(output=run, steps=4000, batch_size=64, learning_rate=2e-3)
    recogniser = train_recogniser(pictures, shown_in_pictures(), replace(config, **changes))
    with atomic_folder(run / MODEL) as folder:
        recogniser.save(folder / "model.safetensors")
    held_out = held_out_pictures()
    logger.info("recogniser: %.1f%% of %d held-out renders", recogniser.accuracy(held_out), len(held_out))


def assemble(work: Path, destination: Path) -> None:
    """Assembles the finished parts in the published layout.

    Weights are in half precision where that is exact enough: the UNet, and the parts that only the evaluation reads.
    """
    pipeline = AltDiffusionPipeline.from_pretrained(work / "scenes" / MODEL)
    pipeline.unet.half()
    pipeline.save_pretrained(destination)
    AltCLIPScorer.from_pretrained(work / "contrastive" / MODEL).save_pretrained(destination / SCORER)
    teacher = work / "teacher" / MODEL
    CLIPModel.from_pretrained(teacher).half().save_pretrained(destination / "teacher")
    CLIPTokenizer.from_pretrained(teacher).save_pretrained(destination / "teacher")
    image_processor().save_pretrained(destination / "teacher")
    distilled = RobertaSeriesModelWithTransformation.from_pretrained(work / "distill" / MODEL)
    distilled.half().save_pretrained(destination / "distilled")
    Recogniser.load(work / "recogniser" / MODEL / "model.safetensors").save()


STAGES: dict[str, Callable[[Path, Changes], None]] = {
    "vae": vae_stage,
    "teacher": teacher_stage,
    "recogniser": recogniser_stage,
    "distill": distill_stage,
    "contrastive": contrastive_stage,
    "english": english_stage,
    "align": align_stage,
    "scenes": scenes_stage,
}
"""The stages in order. Each writes to a folder with its name."""


def main() -> None:
    """Runs the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/emoji"), help="folder for the runs of the stages")
    parser.add_argument("--stage", nargs="+", choices=[*STAGES, "assemble"], default=[*STAGES, "assemble"])
    parser.add_argument("--output", type=Path, default=emoji_m9_folder(), help="where the finished folder goes")
    parser.add_argument("--seconds", type=float, default=0.0, help="save and stop after so long")
    parser.add_argument("--mixed-precision", choices=("no", "fp16", "bf16"), default="no", help="arithmetic")
    parser.add_argument("--steps", type=int, help="of every stage, to try the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ends = time.monotonic() + arguments.seconds
    changes: Changes = {"mixed_precision": arguments.mixed_precision}
    if arguments.steps:
        changes["steps"] = arguments.steps
    write_data(arguments.work / "data")
    try:
        for stage in arguments.stage:
            if stage == "assemble":
                assemble(arguments.work, arguments.output)
            elif not (arguments.work / stage / MODEL).exists():
                left = max(1.0, ends - time.monotonic()) if arguments.seconds else 0.0
                STAGES[stage](arguments.work, {**changes, "stop_after_seconds": left})
    except Stopped as stopped:
        raise SystemExit(str(stopped)) from None


if __name__ == "__main__":
    main()
