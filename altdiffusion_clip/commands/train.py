"""`altdiffusion train`: the stages that made AltCLIP and AltDiffusion, and what people do with them after.

Every setting of a stage is an option of its command: a field of its dataclass in `altdiffusion_clip.training.configs`.
"""

import argparse
import dataclasses
import json
import logging
import types
import typing
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import (
    AddLanguageConfig,
    AlignConfig,
    ContrastiveConfig,
    DistillConfig,
    DreamBoothConfig,
    LoraConfig,
)

STAGES: dict[str, tuple[type[RunConfig], str, str, str]] = {
    "distill": (
        DistillConfig,
        "distill",
        "distill",
        "Stage 1: teach a student a CLIP's text tower, from translations.",
    ),
    "contrastive": (
        ContrastiveConfig,
        "contrastive",
        "contrastive",
        "Stage 2: train the student's captions against pictures.",
    ),
    "align": (AlignConfig, "align", "align", "Train a UNet on a frozen text encoder."),
    "dreambooth": (
        DreamBoothConfig,
        "dreambooth",
        "dreambooth",
        "Teach a model one thing or person, from a few pictures.",
    ),
    "lora": (LoraConfig, "lora", "train_lora", "Train a LoRA, from captioned pictures."),
    "add-language": (
        AddLanguageConfig,
        "add_language",
        "add_language",
        "Teach a text encoder another language, and keep the old ones.",
    ),
}
"""Of each command: its settings, its module in `altdiffusion_clip.training`, its function, and a line of help."""

REQUIRED = {"model", "data", "teacher", "student", "instance_images", "instance_prompt"}
"""Settings without which a stage cannot begin, where it has them."""
_OPTIONAL = {("contrastive", "teacher")}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="Train a model.",
        description="Train a model. Every stage also runs on several GPUs under `accelerate launch`. The same command "
        "continues a run that was stopped.",
    )
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE", title="stages")
    for name, (config, _, _, help_) in STAGES.items():
        stage = stages.add_parser(name, help=help_, description=help_)
        stage.add_argument(
            "--config", type=Path, help="YAML file with settings, as a run writes it. Options take precedence."
        )
        stage.add_argument("--json", action="store_true", help="Print the result as one JSON object.")
        add_settings(stage, config)
        stage.set_defaults(run=run)


def add_settings(parser: argparse.ArgumentParser, config: type[RunConfig]) -> None:
    """Adds an option for each field of a dataclass; those that are not given are left out of the namespace."""
    kinds = typing.get_type_hints(config)
    # A stage's own settings first, then those of every run.
    own = [f for f in dataclasses.fields(config) if f.name not in RunConfig.__dataclass_fields__]
    of_every_run = parser.add_argument_group("every run")
    for field in [*own, *dataclasses.fields(RunConfig)]:
        group = parser if field in own else of_every_run
        kind, name = kinds[field.name], "--" + field.name.replace("_", "-")
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "" if default in ("", [], {}, Path(), 0, 0.0, False) else f" (default: {_said(default)})."
        more: dict[str, Any] = {
            "help": (field.metadata["help"].removesuffix("." if shown else "") + shown).replace("%", "%%"),
            "default": argparse.SUPPRESS,
        }
        origin = typing.get_origin(kind)
        metavar = {int: "N", float: "X", Path: "PATH"}.get(kind, "CODE" if field.name == "languages" else "TEXT")
        if kind is bool:
            more["action"] = argparse.BooleanOptionalAction
        elif origin is list:
            more |= {
                "nargs": "+",
                "type": str,
                "metavar": "PLACE" if typing.get_args(kind) != (str,) else metavar,
            }
        elif origin is dict:
            more |= {"nargs": "+", "type": _key_and_value, "metavar": "KEY=VALUE"}
        elif origin is typing.Literal:
            more |= {"choices": typing.get_args(kind)}
        else:
            more |= {"type": kind if origin is not types.UnionType else str, "metavar": metavar}
        group.add_argument(name, **more)


def run(options: argparse.Namespace) -> bool:
    """Trains."""
    config = read_config(options)
    from importlib import import_module

    from altdiffusion_clip.commands.options import prepare_output

    prepare_output()
    logging.getLogger("altdiffusion_clip").setLevel(logging.INFO)
    from altdiffusion_clip.training.loop import Stopped

    _, module, function, _ = STAGES[options.stage]
    try:
        result = getattr(import_module(f"altdiffusion_clip.training.{module}"), function)(config)
    except Stopped as stopped:
        logging.getLogger("altdiffusion_clip").info("%s", stopped)
        return False
    if config.dry_run:
        figures = result.as_dict()
        if options.json:
            print(json.dumps(figures))
        else:
            for name, value in figures.items():
                print(f"{name.replace('_', ' '):>20}  {value}")
    else:
        print(json.dumps({"model": str(result)}) if options.json else result)
    return True


def read_config(options: argparse.Namespace) -> RunConfig:
    """The settings of a call: those of its YAML, with the options in their place.

    Raises:
        UserError: something needed is missing, or not as it should be.
    """
    kind = STAGES[options.stage][0]
    names = {field.name for field in dataclasses.fields(kind)}
    given = {key: value for key, value in vars(options).items() if key in names}
    given = {
        key: dict(value) if isinstance(value, list) and value and isinstance(value[0], tuple) else value
        for key, value in given.items()
    }
    config = kind.load(options.config, **given) if options.config else kind.of(given, options.stage)
    for name in sorted(REQUIRED & names):
        if getattr(config, name) in ("", [], Path()) and (options.stage, name) not in _OPTIONAL:
            raise UserError(f"train {options.stage} needs --{name.replace('_', '-')}")
    return config


def _said(default: Any) -> str:
    return " ".join(default) if isinstance(default, list) else str(default)


def _key_and_value(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    try:
        return key, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=NUMBER, such as de=4") from None
