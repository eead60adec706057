"""Makes emoji-m18: every stage from the sprites to the finished folder, with this project's own programs.

It follows AltDiffusion-m18: an English CLIP; a student that learns eighteen languages in stages 1 and 2, with a second
projection for its penultimate layer; and a UNet conditioned on that. AltDiffusion aligned the UNet of an English Stable
Diffusion. There is none of this size, so this UNet learns all languages at once.

Run it with ``make emoji-m18``. Each stage writes a checkpoint every minute and continues from it, so the command can be
stopped at any moment and run again. Finished stages are skipped. The package has the finished parts in half precision,
and a machine without runs starts from them.
"""

import argparse
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from transformers import AutoTokenizer

from altdiffusion_clip.emoji.architectures import (
    image_processor,
    new_student_config,
    new_teacher,
    new_vae,
)
from altdiffusion_clip.emoji.captions import Claim, as_typed, claim_of, held_out_words, say
from altdiffusion_clip.emoji.concepts import concepts, drawn_concepts, grounds, is_held_out
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.parts import PACKAGED, keep, new_pipeline, restore, scorer_of, write_average
from altdiffusion_clip.emoji.pictures import ScenePictures, with_hard_negatives
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import draw_scenes
from altdiffusion_clip.emoji.tokenizers import cldr_names, train_clip_tokenizer, train_xlmr_tokenizer
from altdiffusion_clip.files import atomic_folder, atomic_path
from altdiffusion_clip.precision import slowdown
from altdiffusion_clip.training.accelerators import new_accelerator
from altdiffusion_clip.training.align import align
from altdiffusion_clip.training.clip import train_clip
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import AlignConfig, ContrastiveConfig, DistillConfig
from altdiffusion_clip.training.contrastive import contrastive
from altdiffusion_clip.training.data.parallel import ParallelCorpus
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.diffusion import embed_latents
from altdiffusion_clip.training.distill import distill
from altdiffusion_clip.training.loop import Stopped
from altdiffusion_clip.training.models import MODEL, load_tokenizer
from altdiffusion_clip.training.vae import psnr, train_vae

logger = logging.getLogger(__name__)
GUIDANCE = 1.5
Changes = dict[str, Any]
"""Settings that override a stage's own: for another machine, to stop in time, or to try it for a few steps."""

BY_THE_CLOCK: Changes = {"steps": 1_000_000, "checkpoint_seconds": 120.0}
PROFILES: dict[str, dict[str, Changes]] = {
    "cpu": {},
    "gpu": {
        "vae": {**BY_THE_CLOCK, "seconds": 80.0, "batch_size": 64, "workers": 3},
        "latents": {"workers": 7},
        "teacher": {**BY_THE_CLOCK, "seconds": 95.0, "batch_size": 512, "learning_rate": 1e-3, "workers": 9},
        "distill": {**BY_THE_CLOCK, "seconds": 85.0, "batch_size": 1024, "learning_rate": 8e-4, "workers": 5},
        "contrastive": {**BY_THE_CLOCK, "seconds": 25.0, "batch_size": 1024, "learning_rate": 2e-4, "workers": 5},
        "scoring": {**BY_THE_CLOCK, "seconds": 25.0, "batch_size": 1024, "learning_rate": 4e-4, "workers": 5},
        "align": {
            **BY_THE_CLOCK, "seconds": 320.0, "batch_size": 256, "learning_rate": 7e-4, "ema_decay": 0.999,
            "compile": True, "workers": 12,
        },
        "pairs": {**BY_THE_CLOCK, "seconds": 40.0, "batch_size": 256, "workers": 12},
    },
}  # fmt: skip
"""Settings by machine. Those for a CPU are in the stages. On a GPU, stages are limited by time, as GPUs usually are."""

WORK = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "altdiffusion-clip" / "emoji-m18"
PARALLEL_FILE = "parallel.jsonl"

ALL_KINDS = {"one": 8.0, "small": 1.0, "big": 1.0, "beside": 4.0, "above": 2.0, "two": 1.0, "three": 1.0}
"""Shares of the kinds of scenes, for the CLIPs."""

DRAWN_KINDS = {"one": 5.0, "small": 0.5, "big": 1.0, "beside": 4.0, "above": 4.0, "two": 0.5, "three": 0.5}
"""Shares for the UNet. Half are pairs, which are hardest: what is where is decided in much noise."""

PAIRS = {"beside": 2.0, "above": 1.0}
FEW_THINGS = (8, 40)
"""How many things the UNet draws in pairs before it sees all. Among all things at once it does not learn which one is
where: at pure noise, it predicts both in both places."""

DRAWN = {"cpu": 80_000, "gpu": 300_000}
"""How many scenes the UNet is trained with: as many as the machine encodes in a few minutes."""


# -------------------------------------------------------------------- data


def english_sentences(count: int = 60_000) -> Iterator[str]:
    """Sentences for the teacher's tokenizer."""
    words = random.Random(1)
    for scene in draw_scenes(count, seed=2, shares=ALL_KINDS):
        yield say(claim_of(scene, words), "en", words)


def student_sentences(count: int = 120_000) -> Iterator[str]:
    """Sentences for the student's tokenizer: captions as people type them, and names of many other things."""
    words = random.Random(1)
    for number, scene in enumerate(draw_scenes(count, seed=3, shares=ALL_KINDS)):
        language = LANGUAGES[number % len(LANGUAGES)]
        yield as_typed(say(claim_of(scene, words), language, words), language, words)
    for language in LANGUAGES:
        yield from held_out_words(language).values()
    yield from cldr_names(LANGUAGES)


def meanings(pairs: int = 20_000) -> Iterator[Claim]:
    """The claims of parallel sentences: every allowed thing and ground, and a sample of other scenes."""
    for concept in concepts():
        yield Claim("one", (concept,))
        for ground in grounds():
            if not is_held_out(concept, ground):
                yield Claim("one", (concept,), ground)
    words = random.Random(4)
    others = {kind: share for kind, share in ALL_KINDS.items() if kind != "one"}
    for scene in draw_scenes(pairs, seed=5, shares=others):
        yield claim_of(scene, words)


def write_parallel(path: Path) -> Path:
    """Writes parallel sentences in all languages, one meaning per line, unless they exist."""
    if path.is_file():
        return path
    words = random.Random(6)
    held_out = {language: held_out_words(language) for language in LANGUAGES}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for claim in meanings():
            said: dict[str, list[str]] = {"en": [as_typed(say(claim, "en", words), "en", words)]}
            for language in LANGUAGES[1:]:
                said[language] = [as_typed(say(claim, language, words), language, words) for _ in range(2)]
                if claim.kind == "one" and claim.ground is None and claim.things[0].index in held_out[language]:
                    # Held-out words appear only here, as often as the thing with all its grounds.
                    said[language] += [held_out[language][claim.things[0].index]] * len(grounds())
            file.write(json.dumps(said, ensure_ascii=False) + "\n")
            if claim.kind == "one":  # a second English wording, which the teacher reads differently
                other = {"en": [as_typed(say(claim, "en", words), "en", words)]}
                other |= {code: [as_typed(say(claim, code, words), code, words)] for code in LANGUAGES[1:]}
                file.write(json.dumps(other, ensure_ascii=False) + "\n")
    return path


def captioned(folder: Path, tokenizer: Any, languages: Sequence[str], scenes: int = 15_000) -> ScenePictures:
    """Pictures for a CLIP: scenes of all kinds, each with three similar ones."""
    shown = with_hard_negatives(draw_scenes(scenes, seed=7, shares=ALL_KINDS), seed=8)
    folder.mkdir(parents=True, exist_ok=True)
    return ScenePictures(shown, folder, tokenizer, languages, {"en": 2.0}, group=4)


def drawn(work: Path, profile: str, tokenizer: Any = None, languages: Sequence[str] = ("en",)) -> ScenePictures:
    """Pictures for a UNet. Their latents are computed once."""
    folder = work / "data" / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    scenes = draw_scenes(DRAWN[profile], seed=10, shares=DRAWN_KINDS, things=drawn_concepts())
    return ScenePictures(scenes, folder, tokenizer, languages, {"en": 2.0})


# -------------------------------------------------------------------- stages


def vae_stage(work: Path, profile: str, changes: Changes) -> None:
    """Trains on whole pictures; on a CPU on small crops first, because many small steps beat a few large ones."""
    run = work / "vae"
    pictures = ScenePictures(draw_scenes(100_000, 1, {"one": 4, "small": 1, "big": 2, "beside": 2, "above": 1}))
    # Small things are hardest, because they get few latents.
    mostly_small = ScenePictures(draw_scenes(100_000, 11, {**ALL_KINDS, "small": 2.0, "three": 4.0}))
    torch.manual_seed(0)
    vae = new_vae()
    common: dict[str, Any] = {"output": run, "weight_decay": 0.0, "log_every": 100}
    if not changes.get("seconds"):
        config = RunConfig(**common, batch_size=16, steps=6000, learning_rate=1.5e-3, warmup_steps=100, decay_from=0.7)
        train_vae(vae, pictures, replace(config, **changes), crop=RESOLUTION // 2, folder=run / "crops")
    config = RunConfig(**common, batch_size=8, steps=1000, learning_rate=1e-3, warmup_steps=50, ema_decay=0.998)
    vae = train_vae(vae, mostly_small, replace(config, **changes), latent_noise=0.2, folder=run / "whole")
    logger.info("VAE: %.1f dB", psnr(vae, signed(pictures.pixels_of(torch.arange(0, len(pictures), 1000)))))
    with atomic_folder(run / MODEL) as folder:
        vae.save_pretrained(folder)


def latents_stage(work: Path, profile: str, changes: Changes) -> None:
    """Computes the latents of the UNet's pictures."""
    config = RunConfig(workers=changes.get("workers", 0))
    # CPUs with bfloat16 are five times as fast in it, and latents are stored in half precision anyway.
    dtype = torch.bfloat16 if changes.get("mixed_precision") == "bf16" else torch.float32
    vae = AutoencoderKL.from_pretrained(work / "vae" / MODEL, torch_dtype=dtype).eval()
    accelerator = new_accelerator(config)
    embed_latents(vae.to(accelerator.device), drawn(work, profile), accelerator, config.workers)


def teacher_stage(work: Path, profile: str, changes: Changes) -> None:
    """Trains an English-only CLIP, with an English tokenizer and English captions."""
    run = work / "teacher"
    tokenizer = train_clip_tokenizer(english_sentences(), vocab_size=1536)
    torch.manual_seed(0)
    config = RunConfig(
        output=run, batch_size=128, steps=5000, learning_rate=8e-4, warmup_steps=300, weight_decay=0.05, log_every=50
    )
    pictures = captioned(run / "data", tokenizer, ["en"])
    teacher = train_clip(new_teacher(tokenizer), pictures, replace(config, **changes))
    with atomic_folder(run / MODEL) as folder:
        teacher.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        image_processor().save_pretrained(folder)


def sentences_stage(work: Path, profile: str, changes: Changes) -> None:
    """Makes the student's tokenizer, and tokenises the parallel sentences."""
    student = work / "distill" / "untrained"
    if not student.exists():
        with atomic_folder(student) as folder:
            tokenizer = train_xlmr_tokenizer(student_sentences(), folder, vocab_size=8000)
            new_student_config(tokenizer).save_pretrained(folder)
    tokenizer = load_tokenizer(str(student))
    corpus = work / "distill" / "data" / "parallel"
    ParallelCorpus.prepare([write_parallel(work / "data" / PARALLEL_FILE)], tokenizer, corpus, LANGUAGES)


def distill_stage(work: Path, profile: str, changes: Changes) -> None:
    """Stage 1: the student learns both outputs of the English teacher, in eighteen languages."""
    config = DistillConfig(
        output=work / "distill",
        teacher=str(work / "teacher" / MODEL),
        student=str(work / "distill" / "untrained"),
        data=[work / "data" / PARALLEL_FILE],
        languages=list(LANGUAGES),
        steps=9000,
        batch_size=256,
        learning_rate=6e-4,
        warmup_steps=400,
    )
    distill(replace(config, **changes))


def contrastive_stage(work: Path, profile: str, changes: Changes) -> None:
    """Stage 2: the student's captions against pictures, with the teacher's frozen vision tower."""
    run = work / "contrastive"
    config = ContrastiveConfig(
        output=run,
        student=str(work / "distill" / MODEL),
        teacher=str(work / "teacher" / MODEL),
        languages=list(LANGUAGES),
        steps=2000,
        batch_size=256,
        learning_rate=1e-4,
        warmup_steps=100,
    )
    tokenizer = AutoTokenizer.from_pretrained(work / "distill" / MODEL)
    contrastive(replace(config, **changes), captioned(run / "data", tokenizer, LANGUAGES))


def scoring_stage(work: Path, profile: str, changes: Changes) -> None:
    """Trains the student's last layer on, for scores. The UNet reads the layer before it, so pictures do not change."""
    run = work / "scoring"
    student = work / "contrastive" / MODEL
    config = ContrastiveConfig(
        output=run,
        student=str(student),
        languages=list(LANGUAGES),
        keep_conditioning=True,
        steps=2000,
        batch_size=256,
        learning_rate=2e-4,
        warmup_steps=100,
    )
    contrastive(replace(config, **changes), captioned(run / "data", AutoTokenizer.from_pretrained(student), LANGUAGES))


def align_config(work: Path, **own: Any) -> AlignConfig:
    """What the runs of the UNet have in common, and their own settings."""
    return AlignConfig(
        text_encoder=str(scorer_of(work)),
        languages=list(LANGUAGES),
        # Which of two things is on the left is decided in much noise. A UNet that has seen too little of it mixes them.
        timestep_sampling="logit-normal",
        **own,
    )


def pairs_stage(work: Path, profile: str, changes: Changes) -> None:
    """Teaches the UNet which of two things is where, with few things first. The packaged UNet knows it already."""
    run = work / "pairs"
    model = run / "untrained"
    if not model.exists():
        with atomic_folder(model) as temporary:
            new_pipeline(work).save_pretrained(temporary)
    tokenizer = AutoTokenizer.from_pretrained(scorer_of(work))
    for count in FEW_THINGS:
        folder = work / "data" / f"pairs-of-{count}"
        folder.mkdir(parents=True, exist_ok=True)
        things = drawn_concepts()[:: len(drawn_concepts()) // count][:count]
        scenes = draw_scenes(6000, seed=99, shares=PAIRS, things=things)
        config = align_config(
            work,
            output=run if count == FEW_THINGS[-1] else run / str(count),
            model=str(model),
            steps=1000,
            batch_size=16,
            learning_rate=3e-4,
            warmup_steps=20,
            decay_from=0.5,
            logit_mean=2.0,
        )
        trained = align(replace(config, **changes), ScenePictures(scenes, folder, tokenizer, LANGUAGES))
        assert isinstance(trained, Path)
        model = trained


def align_stage(work: Path, profile: str, changes: Changes) -> None:
    """Trains the UNet on the frozen student's conditioning in all eighteen languages, from the packaged weights on."""
    run = work / "align"
    is_begun = (PACKAGED / "unet").exists()
    model = PACKAGED if is_begun else work / "pairs" / MODEL
    tokenizer = AutoTokenizer.from_pretrained(scorer_of(work))
    config = align_config(
        work,
        output=run,
        model=str(model),
        weights={"en": 2.0},
        # For a UNet that has already seen many pictures. Small batches need a small rate.
        steps=7000,
        batch_size=32,
        learning_rate=3e-4,
        warmup_steps=100,
        decay_from=0.2,
        # The layout is decided in much noise and details in little. 0.5 is between them.
        logit_mean=0.5 if is_begun else 1.0,
        ema_decay=0.9993,
        validate_every=2000,
        sample_prompts=[
            "蓝色背景上的猫",
            "яблоко на белом фоне",
            "夜空のロケット",
            "ثعلب في الثلج",
            "ein Kaktus in der Wüste",
        ],
        sample_guidance=GUIDANCE,
    )
    align(replace(config, **changes), drawn(work, profile, tokenizer, LANGUAGES))


STAGES: dict[str, Callable[[Path, str, Changes], None]] = {
    "vae": vae_stage,
    "latents": latents_stage,
    "teacher": teacher_stage,
    "sentences": sentences_stage,
    "distill": distill_stage,
    "contrastive": contrastive_stage,
    "scoring": scoring_stage,
    "pairs": pairs_stage,
    "align": align_stage,
}
"""The stages in order. Each takes the folder, the profile and the changes."""


def is_done(work: Path, stage: str) -> bool:
    """Whether a stage, or a later one that builds on it, is finished."""
    leads_to = {
        "latents": ("align",),
        "sentences": ("distill", "contrastive"),
        "distill": ("distill", "contrastive"),
        "pairs": ("pairs", "align"),
    }
    if stage in ("scoring", "pairs") and (PACKAGED / "unet").exists():
        return True  # what they taught is in the packaged weights
    return any((work / each / MODEL).exists() for each in leads_to.get(stage, (stage,)))


def faster_precision() -> str:
    """bfloat16 on GPUs and on processors that are made for it. Casting costs some of what it gains."""
    if torch.accelerator.is_available():
        return "bf16"
    return "bf16" if slowdown(torch.bfloat16) < 0.5 else "no"


def main() -> None:
    """Runs the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the runs of the stages")
    parser.add_argument("--stage", nargs="*", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seconds", type=float, default=0.0, help="save and stop after so long")
    parser.add_argument("--profile", choices=list(PROFILES), default="cpu", help="batches and steps for a machine")
    parser.add_argument(
        "--mixed-precision", choices=("no", "fp16", "bf16"), help="arithmetic (default: what is faster on this machine)"
    )
    parser.add_argument("--steps", type=int, help="of every stage, to try the recipe")
    parser.add_argument("--train-seconds", type=float, help="of every stage, in place of its own")
    parser.add_argument("--keep", type=Path, help="folder to put the finished parts into, in half precision")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ends = time.monotonic() + arguments.seconds
    changes: Changes = {"mixed_precision": arguments.mixed_precision or faster_precision()}
    if arguments.steps:
        changes["steps"] = arguments.steps
    if arguments.train_seconds:
        changes["seconds"] = arguments.train_seconds
    restore(arguments.work, PACKAGED)
    try:
        for stage in arguments.stage:
            if not is_done(arguments.work, stage):
                left = max(1.0, ends - time.monotonic()) if arguments.seconds else 0.0
                suited = PROFILES[arguments.profile].get(stage, {})
                changes["stop_after_seconds"] = left
                STAGES[stage](arguments.work, arguments.profile, {**suited, **changes})
    except Stopped as stopped:
        raise SystemExit(str(stopped)) from None
    finally:
        write_average(arguments.work)
        if arguments.keep:
            keep(arguments.work, arguments.keep)


if __name__ == "__main__":
    main()
