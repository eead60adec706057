"""Recipes: stages of training one after the other, with all their settings, in a YAML file."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.stages import STAGES, Stage

FOLDER = Path(__file__).parent
_INPUT = re.compile(r"\{([\w-]+)\}")
_YAML = re.compile(r"true|false|[-+]?\.?\d[\d.eE+-]*|\[.*\]|\{.*:.*\}")
"""What is no text. A prompt may say yes or no."""

_BASES = ("student", "model")
"""What a stage begins with; a dry run takes it for what the stage would make."""


@dataclass(frozen=True)
class Step:
    """A stage of a recipe, ready to run.

    Attributes:
        name: in the recipe, and of its folder.
        stage: what it runs.
        config: its settings.
    """

    name: str
    stage: Stage
    config: RunConfig


@dataclass(frozen=True)
class Recipe:
    """A recipe, as it was read.

    Attributes:
        place: its name or file, for messages.
        description: what it makes.
        inputs: what its user gives, by name, and what each is.
        stages: settings of each stage by its name, with the kind of stage in `stage` if that is not its name.
    """

    place: str
    description: str
    inputs: dict[str, str]
    stages: dict[str, dict[str, Any]]

    def steps(self, output: Path, changes: Mapping[str, Any] | None = None, dry_run: bool = False) -> list[Step]:
        """The stages, in order, with all of their settings.

        A text `{pictures}` in a setting is an input, and `{distill}` the folder of what the stage of that name made.

        Args:
            output: folder for the stages' folders.
            changes: inputs; settings of all stages that have them, such as `steps`; and of one stage, such as
                `distill.steps`.
            dry_run: what an earlier stage makes is not there yet, so what it begins with stands for it.

        Raises:
            UserError: a setting is unknown, or an input is not given; the message names the nearest name.
        """
        changes = dict(changes or {})
        given = {name: changes.pop(name) for name in self.inputs if name in changes}
        lacking = [name for name in self.inputs if name not in given]
        if lacking:
            what = "; ".join(f"{name}=... ({self.inputs[name]})" for name in lacking)
            raise UserError(f"{self.place} needs {what}: give it with --set")
        merged = self._merged(changes)
        made: dict[str, str] = {}
        steps = []
        for name, settings in merged.items():
            stage = STAGES[settings.pop("stage", name)]
            filled = {key: _filled(value, {**given, **made}) for key, value in settings.items()}
            config = stage.config.of(
                {**filled, "output": str(output / name), "dry_run": dry_run}, f"{self.place}: {name}"
            )
            for needed in stage.needs:
                if getattr(config, needed) in ("", [], Path()):
                    raise UserError(f"{self.place}: {name} needs {needed}; give it with --set {name}.{needed}=...")
            base = next((str(getattr(config, key)) for key in _BASES if getattr(config, key, "")), "")
            made[name] = base if dry_run else str(output / name / "model")
            steps.append(Step(name, stage, config))
        return steps

    def _merged(self, changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The settings of each stage, with the changes in their place."""
        merged = {name: dict(settings) for name, settings in self.stages.items()}
        fields = {
            name: {field.name for field in dataclasses.fields(STAGES[settings.get("stage", name)].config)}
            for name, settings in self.stages.items()
        }
        for key, value in changes.items():
            name, _, setting = key.rpartition(".")
            having = [stage for stage in merged if setting in fields[stage] and name in ("", stage)]
            if not having:
                known = [*self.inputs, *sorted(set().union(*fields.values()))]
                known += [f"{stage}.{field}" for stage in fields for field in sorted(fields[stage])]
                near = difflib.get_close_matches(key, known, 1)
                meant = f"; did you mean {near[0]}?" if near else f"; its stages are {', '.join(merged)}"
                raise UserError(f"{self.place} has no setting {key!r}{meant}")
            for stage in having:
                merged[stage][setting] = value
        return merged


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Reads a recipe.

    Args:
        name: of one that comes with the package, or a YAML file.

    Raises:
        UserError: there is none, or it is of another form.

    Example:
        >>> sorted(read_recipe("altclip-m9").stages)
        ['contrastive', 'distill']
    """
    path = Path(name)
    if not path.is_file():
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no recipe {name}; name a YAML file, or one of {', '.join(names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}") from error
    stages = values.get("stages") if isinstance(values, dict) else None
    if not isinstance(stages, dict) or not stages or not all(isinstance(each, dict) for each in stages.values()):
        raise UserError(f"{path} is no recipe; it needs stages: with the settings of each, as {FOLDER} has them")
    for stage, settings in stages.items():
        kind = settings.get("stage", stage)
        if kind not in STAGES:
            raise UserError(f"{path}: {stage} is no stage; write stage: with one of {', '.join(STAGES)}")
    inputs = values.get("inputs") or {}
    return Recipe(name, str(values.get("description", "")).strip(), {k: str(v) for k, v in inputs.items()}, stages)


def changes_of(texts: Sequence[str]) -> dict[str, Any]:
    """Changes as they are given on the command line, KEY=VALUE: numbers, true, false, lists, and texts as they are.

    Raises:
        UserError: one is of another form.

    Example:
        >>> changes_of(["steps=10", "distill.languages=[zh, ja]", "sentences=a=b.tsv"])
        {'steps': 10, 'distill.languages': ['zh', 'ja'], 'sentences': 'a=b.tsv'}
    """
    return dict(_changes(texts))


def _changes(texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--set {text}: write KEY=VALUE, such as steps=1000")
        yield key, yaml.safe_load(value) if _YAML.fullmatch(value) else value


def _filled(value: Any, names: Mapping[str, Any]) -> Any:
    """A setting with what its `{names}` stand for."""
    if isinstance(value, list):
        filled = [_filled(item, names) for item in value]
        # An input may be several places.
        return [item for each in filled for item in (each if isinstance(each, list) else [each])]
    if not isinstance(value, str):
        return value
    whole = _INPUT.fullmatch(value)
    if whole and whole[1] in names:
        return names[whole[1]]
    return _INPUT.sub(lambda match: str(names.get(match[1], match[0])), value)
