"""`altdiffusion train`: the stages that made AltCLIP and AltDiffusion, and fine-tuning.

Every setting of a stage is an option of its command: a field of its dataclass in `altdiffusion_clip.training.configs`.
"""

import argparse
import dataclasses
import json
import logging
import sys
import types
import typing
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.recipes import changes_of, names, read_recipe
from altdiffusion_clip.training.stages import STAGES, Stage


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "train",
        help="Train a model.",
        description="Train a model, one stage at a time or by a recipe of several. Every stage also runs on several "
        "GPUs under `accelerate launch`. The same command continues a run that was stopped.",
        examples=[
            "altdiffusion train --recipe altclip-m9 --set sentences=all.tsv pictures=shards/{000..099}.tar --dry-run",
            "altdiffusion train lora --model BAAI/AltDiffusion-m9 --data pictures/ --rank 8 --output runs/style",
        ],
    )
    parser.add_argument(
        "--recipe", metavar="RECIPE", help=f"Run all stages of a recipe: a YAML file, or {', '.join(names())}."
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="Inputs of the recipe, and settings in the place of its own: for all stages (steps=10) or for one "
        "(distill.steps=10).",
    )
    parser.add_argument(
        "--output", type=Path, default=argparse.SUPPRESS, metavar="FOLDER", help="Folder for the stages' folders."
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        default=argparse.SUPPRESS,
        help="Train nothing. Count tokens, memory and steps of each stage.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object for each stage.")
    parser.set_defaults(run=run_recipe)
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", title="stages")
    for name, kind in STAGES.items():
        config, help_ = kind.config, kind.help
        stage = stages.add_parser(name, help=help_, description=help_)
        stage.add_argument(
            "--config", type=Path, help="YAML file with settings, as a run writes it. Options take precedence."
        )
        stage.add_argument("--json", action="store_true", help="Print the result as one JSON object.")
        add_settings(stage, config)
        stage.set_defaults(run=run)


def add_settings(parser: argparse.ArgumentParser, config: type[RunConfig]) -> None:
    """Adds an option for each field of a dataclass. Options that are not given stay out of the namespace."""
    kinds = typing.get_type_hints(config)
    # First the settings of the stage, then those of every run.
    fields = dataclasses.fields(config)
    own = [field for field in fields if field.name not in RunConfig.__dataclass_fields__]
    of_every_run = parser.add_argument_group("every run")
    for field in [*own, *(field for field in fields if field not in own)]:
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
    """Trains one stage."""
    config = read_config(options)
    _prepare()
    return _run(STAGES[options.stage], config, options.json, {})


def run_recipe(options: argparse.Namespace) -> bool:
    """Trains all stages of a recipe.

    Raises:
        UserError: no recipe is named, or it cannot be run.
    """
    if not options.recipe:
        raise UserError(f"name a stage ({', '.join(STAGES)}), or --recipe with one of {', '.join(names())}")
    dry_run = getattr(options, "dry_run", False)
    recipe = read_recipe(options.recipe)
    output = getattr(options, "output", Path("runs") / Path(options.recipe).stem)
    steps = recipe.steps(output, changes_of(options.set), dry_run)
    _prepare()
    return all(_run(step.stage, step.config, options.json, {"stage": step.name}) for step in steps)


def _prepare() -> None:
    from altdiffusion_clip.commands.options import prepare_output

    prepare_output()
    logging.getLogger("altdiffusion_clip").setLevel(logging.INFO)


def _run(stage: Stage, config: RunConfig, as_json: bool, first: dict[str, Any]) -> bool:
    """Runs a stage, prints `first` and the outcome, and returns whether the stage was finished."""
    from accelerate import PartialState

    from altdiffusion_clip.training.accelerators import is_lost_peer
    from altdiffusion_clip.training.loop import Stopped

    try:
        result = stage.run(config)
    except Stopped as stopped:
        logging.getLogger("altdiffusion_clip").info("%s", stopped)
        return False
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        if not PartialState().is_main_process:
            print(file=sys.stderr)  # the main process may have left its bar in mid-line
        raise UserError(
            "another process of this run has ended, and so does this one; give the same command again to continue"
        ) from error
    if not PartialState().is_main_process:
        return True
    figures = {**first, **(result.as_dict() if config.dry_run else {"model": str(result)})}
    if as_json:
        print(json.dumps(figures))
    elif config.dry_run:
        for key, value in figures.items():
            if value is not None:
                print(f"{key.replace('_', ' '):>20}  {value}")
    else:
        print(result)
    return True


def read_config(options: argparse.Namespace) -> RunConfig:
    """The settings of a call: those of its YAML file, overridden by the options.

    Raises:
        UserError: a required setting is missing, or one is invalid.
    """
    stage = STAGES[options.stage]
    kind = stage.config
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {key: value for key, value in vars(options).items() if key in fields}
    given = {
        key: dict(value) if isinstance(value, list) and value and isinstance(value[0], tuple) else value
        for key, value in given.items()
    }
    config = kind.load(options.config, **given) if options.config else kind.of(given, options.stage)
    for name in stage.needs:
        if getattr(config, name) in ("", [], Path()):
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
