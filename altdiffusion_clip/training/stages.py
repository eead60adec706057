"""The training stages by name. Each is imported when it runs."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import (
    AddLanguageConfig,
    AlignConfig,
    ContrastiveConfig,
    DistillConfig,
    DreamBoothConfig,
    LoraConfig,
)


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        config: its settings.
        module: name in `altdiffusion_clip.training`.
        function: name in the module; takes the settings.
        help: one line that says what it does.
        needs: required settings.
    """

    config: type[RunConfig]
    module: str
    function: str
    help: str
    needs: tuple[str, ...]

    def run(self, config: RunConfig) -> Any:
        """Trains, and uploads the model if asked to.

        Returns:
            The folder of the model; for a dry run, an `Estimate`.

        Raises:
            UserError: the message says what is wrong.
        """
        made = getattr(import_module(f"altdiffusion_clip.training.{self.module}"), self.function)(config)
        if config.push_to_hub and not config.dry_run:
            from accelerate import PartialState

            from altdiffusion_clip.training.model_card import push_to_hub

            if PartialState().is_main_process:
                push_to_hub(made, config.push_to_hub)
        return made


STAGES = {
    "distill": Stage(
        DistillConfig,
        "distill",
        "distill",
        "Stage 1: teach a student a CLIP's text tower, from translations.",
        ("data", "student", "teacher"),
    ),
    "contrastive": Stage(
        ContrastiveConfig,
        "contrastive",
        "contrastive",
        "Stage 2: train the student's captions against pictures.",
        ("data", "student"),
    ),
    "align": Stage(AlignConfig, "align", "align", "Train a UNet on a frozen text encoder.", ("data", "model")),
    "dreambooth": Stage(
        DreamBoothConfig,
        "dreambooth",
        "dreambooth",
        "Teach a model one thing or person, from a few pictures.",
        ("instance_images", "instance_prompt", "model"),
    ),
    "lora": Stage(LoraConfig, "lora", "train_lora", "Train a LoRA, from captioned pictures.", ("data", "model")),
    "add-language": Stage(
        AddLanguageConfig,
        "add_language",
        "add_language",
        "Teach a text encoder another language, and keep the old ones.",
        ("data", "model"),
    ),
}
