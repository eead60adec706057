"""Turns prompts, tables and grids into single pictures to draw."""

import hashlib
import itertools
import re
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from altdiffusion_clip.drawing.calls import loras_of
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.drawing.tally import Tally
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import scheduler_name
from altdiffusion_clip.sources.records import Record

COLUMNS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "width": "width",
    "height": "height",
    "steps": "num_inference_steps",
    "num_inference_steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "guidance_scale": "guidance_scale",
    "scheduler": "scheduler",
    "lora": "lora",
    "image": "image",
    "mask": "mask",
    "strength": "strength",
}
"""The settings that columns of a table stand for."""

OF_THE_ROW = ("id", "language")
MOST_SEED = 2**63
RANDOM_SEED = -1
"""A random seed for each picture, as in the WebUIs."""

_WHOLE = ("seed", "width", "height", "num_inference_steps")
_NUMBERS = ("guidance_scale", "strength")
_NOT_IN_NAMES = re.compile(r"[^\w.=+-]+")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Task:
    """A picture to draw.

    Attributes:
        name: of its file, without the suffix; it consists of id, language, varied values and seed.
        group: the pictures of a group are ranked together: those of a prompt in one language.
        settings: of the picture; for a wrong row, as far as they could be read.
        language: of the prompt, if the row has one.
        own: the user's own columns.
        error: one line; empty if it can be drawn.
    """

    name: str
    group: str
    settings: Settings
    language: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Plan:
    """How rows are turned into pictures.

    Attributes:
        settings: the defaults for rows.
        seeds: of rows without one.
        languages: names of columns with the prompt in each language; empty to use the column `prompt`.
        templates: prompts with columns in braces, which are filled in from each row; empty to use the row's prompt.
        vary: values by column; every combination is drawn.
        multiple: sizes must be multiples of this, in pixels.
    """

    settings: Settings
    seeds: Sequence[int]
    languages: Sequence[str] = ()
    templates: Sequence[str] = ()
    vary: Mapping[str, Sequence[str]] = field(default_factory=dict)
    multiple: int = 8


def tasks_of(
    records: Iterable[Record | str], plan: Plan, numbers: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Task]:
    """Yields the pictures of a table, in order.

    Args:
        records: rows with any of `COLUMNS`, `id`, `language` and the user's own columns; or the error of a wrong row.
        plan: how to turn them into pictures.
        numbers: the ids of rows without one in earlier runs, by prompt and in order.

    Raises:
        UserError: an option for all rows is wrong.

    Example:
        >>> plan = Plan(Settings("", 0, (0,), "emoji-m18"), seeds=[7], vary={"guidance": ["3", "5"]})
        >>> [task.name for task in tasks_of([{"prompt": "a cat"}], plan)]
        ['000-guidance3-seed7', '000-guidance5-seed7']
    """
    for name in plan.vary:
        if name not in COLUMNS:
            raise UserError(f"--vary {name}: give one of {', '.join(COLUMNS)}")
    ids = _Ids(numbers or {})
    taken = Tally()
    for number, record in enumerate(records):
        for task in _row_tasks(number, record, plan, ids):
            name, count = task.name, 1
            if not taken.is_new(name):
                while not taken.is_new(f"{name}-{count}"):
                    count += 1
                reason = "a row above has the same id, language and seed"
                task = replace(task, name=f"{name}-{count}", error=task.error or reason)
            yield task


def share_of(tasks: Iterable[Task], number: int, count: int) -> Iterator[Task]:
    """The pictures of one of several runs. Whole groups are dealt out in turn.

    Args:
        tasks: all pictures.
        number: of this run, from 1.
        count: of runs.
    """
    numbers, groups = Tally(), 0
    for task in tasks:
        if numbers.is_new(task.group):
            numbers.add(task.group, groups)
            groups += 1
        if numbers[task.group] % count == number - 1:
            yield task


def shard_of(given: str) -> tuple[int, int]:
    """Parses the number of a run and of all runs from "2/8".

    Raises:
        UserError: it is not valid.

    Example:
        >>> shard_of("2/8")
        (2, 8)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--shard {given}: give the number of this run and of all runs, such as 1/4")
    return int(found[1]), int(found[2])


class _Ids:
    """Gives ids to rows without one: their number, or the id of an earlier run's row with the same prompt."""

    def __init__(self, numbers: Mapping[str, Sequence[str]]) -> None:
        self._earlier = {prompt: deque(ids) for prompt, ids in numbers.items()}
        self._taken = {each for ids in numbers.values() for each in ids}
        self._next = max(map(int, self._taken), default=-1) + 1

    def of(self, number: int, prompt: str) -> str:
        if self._earlier.get(prompt):
            return self._earlier[prompt].popleft()
        own = f"{number:03d}"
        if own in self._taken:
            own = f"{max(self._next, number):03d}"
            self._taken.add(own)
        self._next = max(self._next, int(own) + 1)
        return own


def _row_tasks(number: int, record: Record | str, plan: Plan, ids: _Ids) -> Iterator[Task]:
    if isinstance(record, str):
        settings = replace(plan.settings, prompt="", batch_seeds=())
        yield Task(f"row{number:03d}", f"row{number:03d}", settings, error=f"row {number + 1}: {record}")
        return
    own = {key: value for key, value in record.items() if key not in COLUMNS and key not in OF_THE_ROW}
    own = {key: value for key, value in own.items() if key not in plan.languages}
    said: list[tuple[str, Any]] = [("", template) for template in plan.templates] or [
        (language, record.get(language)) for language in plan.languages
    ]
    said = said or [("", record.get("prompt"))]
    combinations = [dict(zip(plan.vary, values, strict=True)) for values in itertools.product(*plan.vary.values())]
    own_id = str(record.get("id") or "") or ids.of(number, _filled(str(said[0][1] or ""), record))
    for place, (language, text) in enumerate(said):
        prompt = _filled(str(text or ""), record)
        row_id = f"{own_id}-{place}" if len(plan.templates) > 1 else own_id
        language = language or str(record.get("language") or "")
        for varied in combinations:
            settings, errors = _settings_of({**record, **varied}, prompt, plan)
            error = errors[0] if errors else ""
            seeds: Sequence[int] = [settings.seed] if _has(record, "seed") or "seed" in varied else plan.seeds
            marks = [f"{key}{value}" for key, value in varied.items() if key != "seed"]
            group = "-".join(filter(None, [row_id, language]))
            for seed in seeds:
                seed = secrets.randbelow(2**32) if seed == RANDOM_SEED else seed
                name = _file_name("-".join([group, *marks]))
                one = replace(settings, seed=seed, batch_seeds=(seed,))
                yield Task(f"{name}-seed{seed}", group, one, language, own, error and f"row {number + 1}: {error}")


def _has(record: Record, key: str) -> bool:
    return record.get(key) not in (None, "")


def _filled(prompt: str, record: Record) -> str:
    """Fills in `{column}` from the row. Other braces are left alone."""
    return re.sub(r"\{(\w+)\}", lambda found: str(record.get(found[1], found[0])), prompt)


def _file_name(text: str) -> str:
    """A name that is valid on every file system. If it had to be changed, a hash keeps it unique."""
    name = _NOT_IN_NAMES.sub("_", text).strip(".")[:_LONGEST_NAME]
    if name == text:
        return name
    return f"{name}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def _settings_of(record: Record, prompt: str, plan: Plan) -> tuple[Settings, list[str]]:
    """The settings of a row, and its errors."""
    values: dict[str, Any] = {"prompt": prompt}
    errors = [] if prompt.strip() else ["the prompt is empty; say what to draw"]
    for column, name in COLUMNS.items():
        if name == "prompt" or not _has(record, column):
            continue
        given = record[column]
        try:
            if name in _WHOLE:
                values[name] = _whole(given)
            elif name in _NUMBERS:
                values[name] = float(given)
            elif name == "scheduler":
                values[name] = scheduler_name(str(given))
            else:
                values[name] = str(given)
        except UserError as error:
            errors.append(str(error))
        except (ValueError, TypeError, OverflowError):
            errors.append(f"{column} is {given!r}, and no number")
    errors += _wrong(values, plan)
    good = {name: value for name, value in values.items() if name != "seed" or 0 <= value < MOST_SEED}
    return replace(plan.settings, **good), errors


def _whole(given: Any) -> int:
    """Parses a whole number exactly, including the forms in tables: 7, "7", 7.0.

    Raises:
        ValueError: it is not a whole number.
    """
    try:
        return int(str(given))
    except ValueError:
        if float(given) != int(float(given)):
            raise
        return int(float(given))


def _wrong(values: dict[str, Any], plan: Plan) -> Iterator[str]:
    for name in ("width", "height"):
        if name in values and (values[name] < plan.multiple or values[name] % plan.multiple):
            yield f"{name} {values[name]} is no multiple of {plan.multiple}, which this model needs"
    if values.get("num_inference_steps", 1) < 1:
        yield "steps must be 1 or more"
    if not 0 <= values.get("seed", 0) < MOST_SEED:
        yield f"seed {values['seed']} is not between 0 and 2^63"
    if not 0 <= values.get("strength", 0.5) <= 1:
        yield "strength is between 0 and 1"
    for name in ("image", "mask"):
        if values.get(name) and not Path(values[name]).is_file():
            yield f"there is no {name} {values[name]}"
    if values.get("mask") and not values.get("image"):
        yield "a mask needs the image that it belongs to"
    try:
        loras_of(values.get("lora", ""))
    except UserError as error:
        yield str(error)


def seeds_of(given: str) -> list[int]:
    """Parses seeds: "0-99", "1,5,9" or a mix of both; "-1" for random seeds.

    Raises:
        UserError: it is not valid.

    Example:
        >>> seeds_of("0-2,7")
        [0, 1, 2, 7]
    """
    if given.strip() == str(RANDOM_SEED):
        return [RANDOM_SEED]
    seeds: list[int] = []
    for part in given.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not found or (found[2] and int(found[2]) < int(found[1])) or int(found[2] or found[1]) >= MOST_SEED:
            raise UserError(f"--seeds {given}: give numbers and ranges, such as 0-99 or 1,5,9")
        seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
    return list(dict.fromkeys(seeds))


def variations_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Parses what is varied, from "NAME=VALUE,VALUE".

    Raises:
        UserError: it is not valid.

    Example:
        >>> variations_of(["guidance=3,5,7"])
        {'guidance': ['3', '5', '7']}
    """
    vary: dict[str, list[str]] = {}
    for each in given:
        name, _, values = each.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if name not in COLUMNS or not found or name in vary:
            raise UserError(f"--vary {each}: give a column and its values, once each, such as guidance=3,5,7")
        vary[name] = found
    return vary
