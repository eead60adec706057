"""The settings of each stage: one dataclass, one YAML file, one command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig, option

SENTENCES = (
    "Parallel sentences: .jsonl, .tsv, .csv, .parquet, or NAME for NAME.en and NAME.zh. Paths, URLs, and patterns such "
    "as {00..99}.jsonl.gz."
)
PICTURES = (
    "Captioned pictures: .jsonl, .tsv, .csv, .parquet, webdataset .tar, or folders. Paths, URLs, and patterns such as "
    "{0000..0099}.tar."
)


@dataclass(frozen=True, kw_only=True)
class MixedLanguages(RunConfig):
    """A run on data in several languages."""

    languages: list[str] = option([], "Language codes to read (default: all).")
    encoding: str = option("", "Encoding of data that are not UTF-8, such as gb18030.")
    temperature: float = option(1.0, "Mix of languages: 1 follows the data, more favours rare languages.")
    weights: dict[str, float] = option({}, "Factors for the shares of languages, such as en=2.")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(MixedLanguages):
    """Stage 1. The defaults are not AltCLIP's; the recipes have what the papers state."""

    steps: int = option(10_000, "Optimiser steps.")
    batch_size: int = option(256, "Examples per step, over all processes and accumulated parts.")
    warmup_steps: int = option(500, "Steps of linear warm-up.")
    teacher: str = option("", "CLIP whose text tower teaches: a folder or hub id.")
    student: str = option("", "XLM-R or AltDiffusion text encoder to start from: a folder or hub id.")
    pre_transformation: bool = option(False, "Make an m18 of a plain XLM-R: it conditions on the penultimate layer.")
    data: list[str | Path] = option([], SENTENCES)
    validation: list[str | Path] = option([], "Parallel sentences for validation: recall at 1 by language.")


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(MixedLanguages):
    """Stage 2, with AltCLIP's small learning rate (arXiv 2211.06679), because the student is nearly there already."""

    steps: int = option(2000, "Optimiser steps.")
    batch_size: int = option(256, "Examples per step, over all processes and accumulated parts.")
    learning_rate: float = option(2e-6, "Peak learning rate of AdamW.")
    warmup_steps: int = option(500, "Steps of linear warm-up.")
    student: str = option("", "Text encoder of stage 1, or a whole AltCLIP: a folder or hub id.")
    teacher: str = option("", "CLIP that gives the vision tower and projections; not needed for a whole AltCLIP.")
    data: list[str | Path] = option([], PICTURES)
    negatives: Literal["others", "all"] = option(
        "others", "others: a caption that is true of a picture is never its negative. all: CLIP's plain loss."
    )
    keep_conditioning: bool = option(
        False, "Train only what drawing does not depend on, so that a UNet need not be trained again."
    )
    augment: bool = option(False, "Crop pictures anew at each step, instead of computing their features once.")
    mirror: bool = option(False, "With --augment, also mirror pictures. Not for captions that say left and right.")
    validation: list[str | Path] = option([], "Captioned pictures for validation: recall at 1 by language.")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(MixedLanguages):
    """The UNet's alignment. AltDiffusion (arXiv 2308.09991) uses 1e-4 for batches of 3,072; smaller ones need less."""

    steps: int = option(10_000, "Optimiser steps.")
    learning_rate: float = option(1e-5, "Peak learning rate of AdamW.")
    warmup_steps: int = option(500, "Steps of linear warm-up.")
    model: str = option("", "Stable Diffusion or AltDiffusion whose UNet is trained: a folder or hub id.")
    text_encoder: str = option("", "AltCLIP or AltDiffusion text encoder to condition on (default: the model's own).")
    data: list[str | Path] = option([], PICTURES)
    resolution: int = option(0, "Side of the pictures in pixels (default: the model's own).")
    caption_dropout: float = option(0.1, "Share of captions to leave out, so that guidance works.")
    timestep_sampling: Literal["uniform", "logit-normal"] = option(
        "uniform", "Timesteps to train on. logit-normal favours the middle of the schedule."
    )
    logit_mean: float = option(0.0, "Centre of logit-normal timesteps. Above 0 is nearer to noise.")
    pure_noise: float = option(0.0, "Share of examples at the last timestep, where drawing begins.")
    keys_and_values_steps: int = option(0, "Steps that first train only the keys and values of the cross-attention.")
    cache_text_states: bool = option(False, "Encode every caption once and keep the result on disk.")
    compile: bool = option(False, "Compile the UNet: a slow start, then faster steps.")
    sample_prompts: list[str] = option([], "Prompts to draw at each validation.")
    sample_guidance: float = option(7.5, "Guidance scale of the samples.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("caption_dropout", "pure_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is a share and must be from 0 to 1, not {getattr(self, name)}")

    def least(self, name: str) -> int:
        """0 steps are allowed: the keys and values may be all that is trained."""
        return 0 if name == "steps" and self.keys_and_values_steps else super().least(name)


@dataclass(frozen=True, kw_only=True)
class LoraConfig(AlignConfig):
    """A LoRA on captioned pictures, with diffusers' settings."""

    steps: int = option(1500, "Optimiser steps.")
    batch_size: int = option(4, "Examples per step, over all processes and accumulated parts.")
    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.")
    warmup_steps: int = option(100, "Steps of linear warm-up.")
    rank: int = option(8, "Rank of the LoRA.")
    targets: list[str] = option(["to_q", "to_k", "to_v", "to_out.0"], "Layers of the UNet that get the LoRA.")
    train_text_encoder: bool = option(False, "Also train a LoRA on the text encoder.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise UserError(f"rank must be at least 1, not {self.rank}")
        if self.keys_and_values_steps:
            raise UserError("keys_and_values_steps are for the alignment of a whole UNet, not for a LoRA")
        if self.cache_text_states and self.train_text_encoder:
            raise UserError("cache_text_states keeps what train_text_encoder changes; choose one")


@dataclass(frozen=True, kw_only=True)
class DreamBoothConfig(RunConfig):
    """DreamBooth, with the learning rate of the paper (arXiv 2208.12242)."""

    steps: int = option(800, "Optimiser steps.")
    batch_size: int = option(1, "Examples per step, over all processes and accumulated parts.")
    learning_rate: float = option(5e-6, "Peak learning rate of AdamW. A LoRA (--rank) wants about 1e-4.")
    warmup_steps: int = option(0, "Steps of linear warm-up.")
    model: str = option("", "AltDiffusion to teach: a folder or hub id.")
    text_encoder: str = option("", "Text encoder to use (default: the model's own).")
    instance_images: Path = option(Path(), "Folder with pictures of the subject.")
    instance_prompt: str = option("", "Prompt for them, with a rare word for the subject: 一只sks猫.")
    class_prompt: str = option("", "Prompt for the subject's class: 一只猫. If given, the prior is preserved.")
    class_images: int = option(100, "Pictures of the class to draw for that.")
    prior_weight: float = option(1.0, "Weight of the class's loss.")
    class_guidance: float = option(7.5, "Guidance scale for drawing the class.")
    rank: int = option(0, "Rank of the LoRA; 0 trains the whole UNet.")
    train_text_encoder: bool = option(False, "Also train a LoRA on the text encoder.")
    resolution: int = option(0, "Side of the pictures in pixels (default: the model's own).")
    sample_prompts: list[str] = option([], "Prompts to draw at each validation.")
    sample_guidance: float = option(7.5, "Guidance scale of the samples.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_text_encoder and not self.rank:
            raise UserError("train_text_encoder trains a LoRA: also give its rank, such as --rank 8")
        if not self.instance_prompt.strip():
            raise UserError("give --instance-prompt, what the pictures show")


@dataclass(frozen=True, kw_only=True)
class AddLanguageConfig(RunConfig):
    """Another language for a text encoder, keeping the old ones."""

    steps: int = option(10_000, "Optimiser steps.")
    learning_rate: float = option(5e-5, "Peak learning rate of AdamW.")
    warmup_steps: int = option(500, "Steps of linear warm-up.")
    model: str = option("", "AltDiffusion, AltCLIP or text encoder to teach: a folder, or emoji-m18.")
    data: list[str | Path] = option([], "Parallel sentences of English and the new language.")
    replay: list[str | Path] = option([], "Sentences in the languages that it knows, so that it keeps them.")
    languages: list[str] = option([], "New language codes to read from the data (default: all).")
    encoding: str = option("", "Encoding of data that are not UTF-8, such as gb18030.")
    temperature: float = option(1.0, "Mix of languages: 1 follows the data, more favours rare languages.")
    keep_weight: float = option(1.0, "Weight of keeping the old languages, against learning the new one.")
    validation: list[str | Path] = option([], "Parallel sentences for validation: recall at 1 by language.")
