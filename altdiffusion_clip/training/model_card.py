"""Writes model cards: data, settings and figures of a training run."""

import dataclasses
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from altdiffusion_clip import __version__
from altdiffusion_clip.checkpoints.licences import licence_of
from altdiffusion_clip.checkpoints.model_ids import looks_local
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.files import write_text
from altdiffusion_clip.training.config import NOT_PART_OF_A_RUN, RunConfig
from altdiffusion_clip.training.metrics import METRICS_FILE

CARD = "README.md"
_BASES = ("model", "student", "teacher", "text_encoder")
_PACKAGES = ("torch", "transformers", "diffusers", "accelerate", "peft")
_KINDS = {
    "DistillConfig": ("a text encoder taught by a CLIP's (AltCLIP's stage 1)", "transformers", "feature-extraction"),
    "ContrastiveConfig": ("an AltCLIP (stage 2)", "transformers", "zero-shot-image-classification"),
    "AlignConfig": ("an AltDiffusion, its UNet aligned with its text encoder", "diffusers", "text-to-image"),
    "LoraConfig": ("a LoRA for an AltDiffusion", "diffusers", "text-to-image"),
    "DreamBoothConfig": ("an AltDiffusion taught one subject by DreamBooth", "diffusers", "text-to-image"),
    "AddLanguageConfig": ("a model that was taught another language", "diffusers", "text-to-image"),
}
"""For each stage: what it makes, the library that loads it, and its task on the hub."""

_DRAWS = ("AltDiffusionPipeline", 'pipe = AltDiffusionPipeline.from_pretrained("{place}")\npipe("一只猫").images[0]')
_USES = {
    "DistillConfig": (
        "RobertaSeriesModelWithTransformation",
        'encoder = RobertaSeriesModelWithTransformation.from_pretrained("{place}")',
    ),
    "ContrastiveConfig": (
        "AltCLIPScorer",
        'scorer = AltCLIPScorer.from_pretrained("{place}")\nscorer.similarity(["a cat", "一只狗"], ["picture.png"])',
    ),
    "AlignConfig": _DRAWS,
    "DreamBoothConfig": _DRAWS,
    "AddLanguageConfig": _DRAWS,
    "LoraConfig": (
        "AltDiffusionPipeline",
        'pipe = AltDiffusionPipeline.from_pretrained("{base}")\npipe.load_lora_weights("{place}")\n'
        'pipe("一只猫").images[0]',
    ),
}
"""For each stage: the import and a snippet that uses the result."""


def write_card(folder: Path, config: RunConfig) -> None:
    """Writes the card of a finished model, unless it already has one.

    Args:
        folder: of the model.
        config: of the run. Its folder has the data and the figures.
    """
    if not (folder / CARD).exists():
        write_text(folder / CARD, card_text(config))


def card_text(config: RunConfig) -> str:
    """The card in Markdown with the hub's metadata. It contains no local paths."""
    kind = type(config).__name__
    if getattr(config, "rank", 0):  # DreamBooth's too
        kind = "LoraConfig"
    what, library, task = _KINDS.get(kind, ("a model", "transformers", ""))
    bases = [str(getattr(config, name)) for name in _BASES if getattr(config, name, "")]
    published = list(dict.fromkeys(base for base in bases if not looks_local(base) and "/" in base))
    licence = next(filter(None, map(licence_of, bases)), None)
    data = list(_data_of(config.output))
    metadata: dict[str, Any] = {"library_name": library, "tags": ["altdiffusion", "altclip"]}
    metadata |= {"pipeline_tag": task} if task else {}
    metadata |= {"base_model": published} if published else {}
    metadata |= {"license": licence.id} if licence else {}
    languages = sorted({code for each in data for code in each["languages"]})
    metadata |= {"language": languages} if languages else {}
    lines = ["---", yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(), "---", ""]
    lines += [f"# {config.output.name}", "", f"This is {what}. It was trained by altdiffusion-clip {__version__}."]
    if bases:
        lines += ["", f"It was made from {', '.join(dict.fromkeys(map(_name, bases)))}."]
    if licence:
        lines += [f"The licence of that is {licence.name}, which applies to this model too."]
    elif bases:
        lines += ["Their licences apply to this model too."]
    if kind in _USES:
        imported, used = _USES[kind]
        used = used.format(place=config.push_to_hub or config.output.name, base=_name(bases[0]) if bases else "")
        lines += ["", "```python", f"from altdiffusion_clip import {imported}", "", *used.split("\n"), "```"]
    if data:
        lines += ["", "## Data", "", "| | source | examples | languages | left out |", "|---|---|---|---|---|"]
        for each in data:
            places, spoken = ", ".join(each["places"]), ", ".join(each["languages"])
            lines.append(f"| {each['part']} | {places} | {each['count']} | {spoken} | {each['left_out']} |")
    figures = _figures_of(config.output)
    if figures:
        lines += ["", "## Figures", "", "At the end of the training. Recall at 1 (`r1`) is in percent.", ""]
        lines += ["| figure | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in figures.items())]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|", *_settings_of(config)]
    packages = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    lines += ["", "## Versions", "", f"altdiffusion-clip {__version__}, {', '.join(packages)}", ""]
    return "\n".join(lines)


def push_to_hub(folder: Path, repository: str) -> str:
    """Uploads a finished model to the hub. A repository that does not exist is created as a private one.

    Args:
        folder: of the model.
        repository: `USER/NAME`.

    Returns:
        The URL of the upload.

    Raises:
        UserError: the upload failed. The local model is kept.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # network, hub or authentication errors
        raise UserError(
            f"cannot upload to {repository} ({one_line(error)}); the model is in {folder}: upload it by "
            f"`hf upload {repository} {folder}`, or give the same command again"
        ) from error


def _name(place: str) -> str:
    """The name of a model or file without local folders."""
    return PurePosixPath(place.rstrip("/")).name if looks_local(place) or place.startswith("/") else place


def _data_of(output: Path) -> Iterator[dict[str, Any]]:
    for made_from in sorted((output / "data").glob("*/made_from.json")):
        meta = made_from.with_name("meta.json")
        if meta.is_file():
            known = json.loads(meta.read_text(encoding="utf-8"))
            places = [_name(place) for place, _ in json.loads(made_from.read_text(encoding="utf-8"))["data"]]
            left_out = ", ".join(f"{reason}: {count}" for reason, count in known["left_out"].items())
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            part = made_from.parent.name
            yield {
                **known,
                "part": part,
                "places": [*places[:3], *([more.strip()] if more else [])],
                "left_out": left_out or "none",
            }


def _figures_of(output: Path) -> dict[str, float]:
    """The last value of each figure of a run, except those about speed."""
    path, last = output / METRICS_FILE, dict[str, float]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        figures = json.loads(line)
        last |= {name: value for name, value in figures.items() if value is not None}
    return {name: last[name] for name in last if name in ("step", "loss") or name.startswith("r1_")}


def _settings_of(config: RunConfig) -> Iterator[str]:
    """The settings that differ from the defaults and decide what a run computes."""
    values = config.as_dict()
    for field in dataclasses.fields(config):
        value = values[field.name]
        default = field.default_factory() if callable(field.default_factory) else field.default  # type: ignore[misc]
        if field.name in NOT_PART_OF_A_RUN or field.name == "output" or value == default or value in ("", [], {}):
            continue
        shown = [_name(str(each)) for each in value] if isinstance(value, list) else _name(str(value))
        yield f"| {field.name} | {', '.join(shown) if isinstance(shown, list) else shown} |"


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return ""
