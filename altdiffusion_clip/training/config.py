"""The settings of a run, a dataclass that is stored beside its checkpoints as YAML."""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.files import write_text

CONFIG_FILE = "config.yaml"
MODEL = "model"
"""The folder of the finished model in a run's folder."""

NOT_PART_OF_A_RUN = frozenset(
    {
        "dry_run",
        "workers",
        "cache",
        "checkpoint_seconds",
        "log_every",
        "cpu",
        "stop_after_seconds",
        "compile",
        "trackers",
        "push_to_hub",
    }
)
"""Fields that may change when a run is continued. All others decide what it computes."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A field with the line that the command's help shows."""
    metadata = {"help": help, **metadata}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long and how fast to train, and where to write.

    Example:
        >>> RunConfig(output=Path("run"), steps=100, warmup_steps=10, learning_rate=1.0).learning_rate_at(4)
        0.5
    """

    output: Path = option(Path("run"), "Folder for checkpoints, metrics and the finished model.")
    steps: int = option(1000, "Optimiser steps.")
    seconds: float = option(
        0.0, "Train for this many seconds; the learning rate follows the clock, and --steps is the limit."
    )
    batch_size: int = option(64, "Examples per step, over all processes and accumulated parts.")
    learning_rate: float = option(1e-4, "Peak learning rate of AdamW.")
    warmup_steps: int = option(100, "Steps of linear warm-up.")
    decay_from: float = option(0.0, "Share of the run after which the cosine decay to zero begins.")
    weight_decay: float = option(0.01, "Weight decay of matrices and filters.")
    max_grad_norm: float = option(1.0, "Largest norm of the gradients.")
    ema_decay: float = option(0.0, "Decay of the exponential moving average of the weights; 0 keeps none.")
    gradient_accumulation_steps: int = option(1, "Parts in which each process computes its share of a batch.")
    mixed_precision: Literal["no", "fp16", "bf16"] = option("no", "Arithmetic.")
    gradient_checkpointing: bool = option(False, "Save memory by computing activations twice.")
    cpu: bool = option(False, "Use the CPU even if there is a GPU.")
    seed: int = option(0, "Seed of weights, batches and noise.")
    cache: str = option("", "Folder for precomputed data, which runs may share (default: in the run's own folder).")
    workers: int = option(0, "Processes that read batches ahead; 0 reads them between steps.")
    checkpoint_seconds: float = option(60.0, "Least seconds between checkpoints. Slow ones take 5% of the time.")
    stop_after_seconds: float = option(
        0.0, "Save and stop after this many seconds, to continue later; 0 runs to the end."
    )
    validate_every: int = option(0, "Steps between validations; 0 validates only at the end.")
    log_every: int = option(20, "Steps between lines of metrics.jsonl.")
    max_spike: float = option(
        0.0, "Skip a step whose gradient's norm is more than this many times the mean of those before; 0 skips none."
    )
    trackers: list[str] = option([], "Trackers of accelerate's to log to as well, such as wandb, mlflow or comet_ml.")
    push_to_hub: str = option(
        "", "Hub repository to upload the finished model to, such as me/my-model. A new one is private."
    )
    dry_run: bool = option(False, "Train nothing. Count tokens, memory and steps.")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "log_every"):
            if getattr(self, name) < self.least(name):
                raise UserError(f"{name} must be at least {self.least(name)}, not {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay must be at least 0 and below 1, not {self.ema_decay}")

    def least(self, name: str) -> int:
        """The smallest allowed value of a field that counts something."""
        return 1

    def data_folder(self, part: str) -> dict[str, Any]:
        """Where a part of the data is prepared: arguments for `prepare` of `CaptionedPictures` and `ParallelCorpus`."""
        return {"folder": self.output / "data" / part, "cache": Path(self.cache) if self.cache else None}

    def learning_rate_at(self, step: int, seconds: float = 0.0) -> float:
        """The learning rate at a step.

        Args:
            step: from 0.
            seconds: training time so far; used if the run is limited by time.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        # The decay starts at the end of the warm-up. Otherwise it would start with a jump.
        start = self.decay_from if self.seconds else max(self.decay_from, self.warmup_steps / self.steps)
        progress = seconds / self.seconds if self.seconds else step / self.steps
        if progress < min(start, 1.0):
            return self.learning_rate
        progress = (progress - start) / max(1 - start, 1e-9)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def as_dict(self) -> dict[str, Any]:
        """All fields, with paths as strings."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    def save(self) -> None:
        """Writes the YAML beside the checkpoints. A finished run can be extended with more steps.

        Raises:
            UserError: the folder has a run with other settings. The message names the first difference.
        """
        path = self.output / CONFIG_FILE
        if path.is_file():
            before = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            done = self.output / MODEL
            aside = self.output / f"{MODEL}-{before.get('steps')}-steps"
            for key, value in self.as_dict().items():
                if key in NOT_PART_OF_A_RUN or key not in before or before[key] == value:
                    continue
                if key == "steps" and value > before[key] and (done.exists() or aside.exists()):
                    # The run continues from its last checkpoint, and its previous model is kept.
                    if done.exists():
                        done.rename(aside)
                    continue
                raise UserError(
                    f"{self.output} holds a run with {key}: {before[key]}, and not {value}; give the same settings to "
                    "go on with it, more steps when it is finished, or another --output"
                )
        write_text(path, yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True))

    @classmethod
    def load(cls, path: Path, **changes: Any) -> Self:
        """Reads the YAML of a run.

        Args:
            path: the file.
            **changes: fields that override those in the file.

        Raises:
            UserError: it cannot be read, or has an unknown field.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot read {path}: {one_line(error)}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path} is not a list of settings; write lines such as  steps: 1000")
        return cls.of({**values, **changes}, str(path))

    @classmethod
    def of(cls, values: dict[str, Any], place: str = "the settings") -> Self:
        """Makes a config from plain values.

        Raises:
            UserError: a field is unknown, or its value has the wrong type.
        """
        kinds = typing.get_type_hints(cls)
        fields = {f.name: kinds[f.name] for f in dataclasses.fields(cls)}
        for key in values:
            if key not in fields:
                near = difflib.get_close_matches(str(key), fields, 1)
                meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
                raise UserError(f"{place}: there is no setting {key!r}; {meant}")
        return cls(**{key: _typed(value, fields[key], f"{place}: {key}") for key, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _typed(value: Any, kind: Any, place: str) -> Any:
    """Converts a value from YAML or the command line to the type of its field."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
        origin = typing.get_origin(kind)
    if origin is list:
        (item,) = typing.get_args(kind)
        return [_typed(one, item, place) for one in (value if isinstance(value, list) else [value])]
    if origin is dict:
        return dict(value)
    if origin is Literal:
        # YAML reads an unquoted "no" as false.
        value = "no" if value is False else value
        if value not in typing.get_args(kind):
            raise UserError(f"{place}: {value!r} is none of {', '.join(typing.get_args(kind))}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"{place}: {value!r} is neither true nor false")
        return value
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{place}: {value!r} is no {kind.__name__}") from error
