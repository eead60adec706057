"""Recipes: YAML files with several training stages and all their settings."""

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
"""Values that are not texts. A prompt may be "yes" or "no"."""

_BASES = ("student", "model")
"""The settings for a stage's starting model. A dry run uses that in place of the stage's result."""


@dataclass(frozen=True)
class Step:
    """A stage of a recipe, ready to run.

    Attributes:
        name: in the recipe, and the name of its folder.
        stage: the stage to run.
        config: its settings.
    """

    name: str
    stage: Stage
    config: RunConfig


@dataclass(frozen=True)
class Recipe:
    """A recipe from a file.

    Attributes:
        place: its name or file, for messages.
        description: what it makes.
        inputs: names of what the user must give, with descriptions.
        stages: settings by name of the stage, with the kind of stage in `stage` if it differs from the name.
    """

    place: str
    description: str
    inputs: dict[str, str]
    stages: dict[str, dict[str, Any]]

    def steps(self, output: Path, changes: Mapping[str, Any] | None = None, dry_run: bool = False) -> list[Step]:
        """The stages in order, with all settings.

        In a setting, `{pictures}` stands for an input, and `{distill}` for the folder of that stage's result.

        Args:
            output: folder for the stages' folders.
            changes: inputs; settings for all stages that have them, such as `steps`; and settings for one stage, such
                as `distill.steps`.
            dry_run: the results of earlier stages do not exist yet, so their starting models are used instead.

        Raises:
            UserError: a setting is unknown, or an input is missing. The message names the closest match.
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
        """The settings of each stage with the changes applied."""
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
    """The recipes in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Reads a recipe.

    Args:
        name: of a recipe in the package, or a YAML file.

    Raises:
        UserError: it does not exist, or has another format.

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
    """Parses KEY=VALUE changes from the command line: numbers, true, false, lists and texts.

    Raises:
        UserError: one has another format.

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
    """Fills in the `{names}` in a setting."""
    if isinstance(value, list):
        filled = [_filled(item, names) for item in value]
        # An input may consist of several places.
        return [item for each in filled for item in (each if isinstance(each, list) else [each])]
    if not isinstance(value, str):
        return value
    whole = _INPUT.fullmatch(value)
    if whole and whole[1] in names:
        return names[whole[1]]
    return _INPUT.sub(lambda match: str(names.get(match[1], match[0])), value)
