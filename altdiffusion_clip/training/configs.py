"""The settings of each stage: one dataclass, one YAML file, one command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig, option


@dataclass(frozen=True, kw_only=True)
class MixedLanguages(RunConfig):
    """A run on data in several languages."""

    languages: list[str] = option([], "language codes to read; all if not given")
    temperature: float = option(1.0, "of the mix of languages: 1 as in the data, larger favours rare ones")
    weights: dict[str, float] = option({}, "factors on the shares of some languages, as  en=2")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(MixedLanguages):
    """Stage 1."""

    teacher: str = option("", "CLIP whose text tower teaches: a folder or hub id")
    student: str = option("", "XLM-R or AltDiffusion text encoder to begin with: a folder or hub id")
    pre_transformation: bool = option(False, "a plain XLM-R becomes an m18: it conditions on its layer before the last")
    data: list[Path] = option([], "parallel sentences: .jsonl, .tsv, .parquet, or NAME for NAME.en and NAME.zh")
    validation: list[Path] = option([], "parallel sentences to measure with: R@1 of each language")


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(MixedLanguages):
    """Stage 2."""

    student: str = option("", "text encoder of stage 1, or a whole AltCLIP to go on with: a folder or hub id")
    teacher: str = option("", "CLIP whose vision tower and projections are taken; not needed for a whole AltCLIP")
    data: list[Path] = option([], "captioned pictures: .jsonl, .tsv, .parquet, or folders with a captions.jsonl")
    negatives: Literal["others", "all"] = option(
        "others", "others: a caption that is true of a picture is never its negative; all: CLIP's plain loss"
    )
    augment: bool = option(False, "crop and mirror pictures anew at each step, in place of features computed once")
    validation: list[Path] = option([], "captioned pictures to measure with: R@1 of each language")


@dataclass(frozen=True, kw_only=True)
class AlignConfig(MixedLanguages):
    """The UNet's alignment."""

    model: str = option("", "Stable Diffusion or AltDiffusion folder, or hub id, whose UNet is trained")
    text_encoder: str = option("", "AltCLIP, or AltDiffusion text encoder, to draw from; the model's own if not given")
    data: list[Path] = option([], "captioned pictures: .jsonl, .tsv, .parquet, or folders with a captions.jsonl")
    resolution: int = option(0, "side of the pictures in pixels; the model's own if not given")
    caption_dropout: float = option(0.1, "share of captions left out, so that there is guidance")
    keys_and_values_steps: int = option(0, "steps before the others that train the cross-attention's keys and values")
    cache_text_states: bool = option(False, "encode every caption once and keep it on disk")
    compile: bool = option(False, "compile the UNet: a minute at first, faster steps afterwards")
    sample_prompts: list[str] = option([], "prompts to draw at each validation")
    sample_guidance: float = option(7.5, "guidance scale of the samples")

    def least(self, name: str) -> int:
        """No step need train the whole UNet after its keys and values."""
        return 0 if name == "steps" and self.keys_and_values_steps else super().least(name)


@dataclass(frozen=True, kw_only=True)
class LoraConfig(AlignConfig):
    """A LoRA of captioned pictures."""

    rank: int = option(8, "of the LoRA's matrices")
    targets: list[str] = option(["to_q", "to_k", "to_v", "to_out.0"], "layers of the UNet that it is put on")
    train_text_encoder: bool = option(False, "also a LoRA on the text encoder")

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
    """DreamBooth."""

    model: str = option("", "AltDiffusion folder or hub id to teach")
    text_encoder: str = option("", "another text encoder; the model's own if not given")
    instance_images: Path = option(Path(), "folder with pictures of the one thing")
    instance_prompt: str = option("", "what they show, with a rare word for it: 一只sks猫")
    class_prompt: str = option("", "what such things are called: 一只猫; with it, the prior is preserved")
    class_images: int = option(100, "pictures of the class that the model draws for that")
    prior_weight: float = option(1.0, "of the class's loss")
    class_guidance: float = option(7.5, "guidance scale that the class is drawn with")
    rank: int = option(0, "train a LoRA of this rank; 0 trains the whole UNet")
    train_text_encoder: bool = option(False, "also a LoRA on the text encoder")
    resolution: int = option(0, "side of the pictures in pixels; the model's own if not given")
    sample_prompts: list[str] = option([], "prompts to draw at each validation")
    sample_guidance: float = option(7.5, "guidance scale of the samples")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_text_encoder and not self.rank:
            raise UserError("train_text_encoder trains a LoRA: give its rank too, as --rank 8")
        if not self.instance_prompt.strip():
            raise UserError("give --instance-prompt, what the pictures show")


@dataclass(frozen=True, kw_only=True)
class AddLanguageConfig(RunConfig):
    """Another language for a text encoder, the old ones kept."""

    model: str = option("", "AltDiffusion, AltCLIP or text encoder to teach: a folder, or emoji-m9")
    data: list[Path] = option([], "parallel sentences of English and the new language")
    replay: list[Path] = option([], "sentences of the languages that it knows, so that it keeps them")
    languages: list[str] = option([], "new language codes to read from the data; all if not given")
    temperature: float = option(1.0, "of the mix of languages: 1 as in the data, larger favours rare ones")
    keep_weight: float = option(1.0, "of keeping the old languages, against learning the new one")
    validation: list[Path] = option([], "parallel sentences to measure with: R@1 of each language")
