"""Loads judges by their names."""

import difflib
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import torch

from altdiffusion_clip.checkpoints.layouts import read_json
from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18, is_packaged, looks_local, resolve
from altdiffusion_clip.errors import CheckpointError, UserError
from altdiffusion_clip.judges import altclip, composed, dual_encoders, functions, image_reward, open_clip
from altdiffusion_clip.judges.base import DualJudge, Function, Judge, is_dual
from altdiffusion_clip.judges.dual import place_of
from altdiffusion_clip.judges.ensembles import RULES, Ensemble, Panel
from altdiffusion_clip.scoring import AltCLIPScorer


class Loader(Protocol):
    """Loads one kind of judge."""

    def __call__(self, name: str, spec: str, device: torch.device, dtype: torch.dtype) -> Judge:
        """Loads what `spec` describes, shown as `name`."""


LOADERS: dict[str, Loader] = {"open_clip": open_clip.load, "python": functions.load}
"""Loaders by the prefix of a name. Packages add theirs as entry points of `altdiffusion.judges`."""
GROUP = "altdiffusion.judges"


def load_judge(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, pipeline: Any = None
) -> Judge | Ensemble:
    """Loads a judge by name.

    Args:
        name: "emoji-m18" or its English teacher, "emoji-m18/teacher"; a folder, single file or hub id of an AltCLIP; a
            folder or hub id of a CLIP (PickScore's among them), Chinese-CLIP, SigLIP, SigLIP 2 or ImageReward;
            "TEXT+VISION" for Taiyi's or M-CLIP's text tower with a CLIP's vision tower;
            "open_clip:ARCHITECTURE@WEIGHTS"; "python:MODULE:FUNCTION" or "python:FILE.py:FUNCTION"; "logits:A,B",
            "zscores:A,B" or "ranks:A,B" for a combination; or what an installed package adds. "NAME=JUDGE" shows it
            under another name.
        device: to load it to.
        dtype: of the weights, and to compute in.
        pipeline: a diffusers pipeline. An AltCLIP trained with its text encoder shares that.

    Raises:
        UserError: it cannot be loaded.

    Example:
        >>> judge = load_judge("emoji-m18")
        >>> judge.text_features(["猫", "a cat"]).shape
        torch.Size([2, 192])
    """
    return _load(name, torch.device(device), dtype, pipeline, {})


def load_panel(
    judges: Any,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    pipeline: Any = None,
    long_text: str = "truncate",
) -> Panel:
    """Makes a panel of judges, functions and names. What is named twice is loaded once.

    Args:
        judges: one or several.
        device: for judges given by name.
        dtype: for judges given by name.
        pipeline: as in `load_judge`.
        long_text: how to read texts with too many tokens, one of `LONG_TEXT`.

    Raises:
        UserError: one cannot be loaded, or does not support `long_text`.
    """
    given = list(judges) if isinstance(judges, Sequence) and not isinstance(judges, str) else [judges]
    known: dict[str, Judge] = {}
    panel = Panel([_as_judge(each, torch.device(device), dtype, pipeline, known) for each in given])
    if long_text != "truncate":
        for judge in panel.members:
            if not hasattr(judge, "read_at_length"):
                raise UserError(f"{judge.name} reads texts as it does; omit --long-text")
            judge.read_at_length(long_text)
    return panel


def load_dual(
    names: Sequence[str], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> DualJudge:
    """Loads the one named judge, which must have vectors.

    Args:
        names: exactly one name.
        device: to load it to.
        dtype: of the weights, and to compute in.

    Raises:
        UserError: it cannot be loaded, there are several, or it has no vectors.
    """
    if len(names) != 1:
        raise UserError(f"vectors are of one judge, not of {len(names)}; run it once for each")
    return as_dual(load_judge(names[0], device, dtype))


def as_dual(judge: Judge | Ensemble) -> DualJudge:
    """Returns a judge if it has vectors.

    Raises:
        UserError: it has none.
    """
    if isinstance(judge, Ensemble) or not is_dual(judge):
        raise UserError(f"{judge.name} gives scores, but no vectors; name a judge of two towers")
    return judge


def _as_judge(
    given: Any, device: torch.device, dtype: torch.dtype, pipeline: Any, known: dict[str, Judge]
) -> Judge | Ensemble:
    if isinstance(given, str):
        return _load(given, device, dtype, pipeline, known)
    if isinstance(given, AltCLIPScorer):
        return altclip.AltCLIPJudge(given)
    if isinstance(given, Ensemble) or hasattr(given, "fingerprint"):
        judge: Judge | Ensemble = given
        return judge
    if callable(given):
        function: Function = given
        return functions.FunctionJudge(function)
    raise UserError(f"a {type(given).__name__} cannot be a judge; give a name, a scorer or a function")


def _load(
    given: str, device: torch.device, dtype: torch.dtype, pipeline: Any, known: dict[str, Judge]
) -> Judge | Ensemble:
    name, spec = named(given)
    rule, colon, rest = spec.partition(":")
    if colon and rule in RULES:
        judges = [_load(each.strip(), device, dtype, pipeline, known) for each in rest.split(",") if each.strip()]
        inner = next((judge.name for judge in judges if isinstance(judge, Ensemble)), None)
        if inner:
            raise UserError(f"{given}: {inner} is made of several judges itself; name each of them")
        return Ensemble(tuple(judge for judge in judges if not isinstance(judge, Ensemble)), rule, name)
    if spec not in known:
        known[spec] = _loaded(name, spec, device, dtype, pipeline)
    return known[spec]


def _loaded(name: str, spec: str, device: torch.device, dtype: torch.dtype, pipeline: Any) -> Judge:
    loader, rest = _loader_of(spec)
    if loader is not None:
        return loader(name, rest, device, dtype)
    text, plus, vision = spec.partition("+")
    if plus and not Path(spec).exists():
        return composed.load(name, place_of(text), place_of(vision), device, dtype)
    _say_the_nearest(spec)
    place = place_of(spec)
    if (place / image_reward.CONFIG_FILE).is_file():
        return image_reward.load(name, place, device, dtype)
    config = place / "config.json"
    kind = read_json(config).get("model_type") if config.is_file() else None
    if kind in dual_encoders.MODEL_TYPES:
        return dual_encoders.load(name, place, str(kind), device, dtype)
    return _shared(name, spec, pipeline) or altclip.load(name, spec, device, dtype)


def _shared(name: str, spec: str, pipeline: Any) -> Judge | None:
    """An AltCLIP over a pipeline's own text encoder, if it was trained with that."""
    if pipeline is None:
        return None
    try:
        return altclip.AltCLIPJudge(AltCLIPScorer.from_pipeline(pipeline, spec), name)
    except (CheckpointError, TypeError):
        return None


def _loader_of(spec: str) -> tuple[Loader | None, str]:
    """The loader for the prefix of a name, and the rest of the name."""
    kind, colon, rest = spec.partition(":")
    if colon and kind in LOADERS:
        return LOADERS[kind], rest
    for entry in entry_points(group=GROUP, name=kind):
        loader: Loader = entry.load()
        return loader, rest
    return None, spec


def _say_the_nearest(spec: str) -> None:
    """Rejects a name that is neither a judge nor a path or hub id.

    Raises:
        UserError: it lists similar names.
    """
    resolve(spec)  # a model that is no longer in the package says so
    if Path(spec).exists() or ("/" in spec and ":" not in spec) or is_packaged(spec):
        return
    kind, colon, _ = spec.partition(":")
    if not colon and looks_local(spec) and spec.endswith((".safetensors", ".ckpt")):
        return  # a file that does not exist
    known = [EMOJI_M18, *(f"{each}:" for each in (*LOADERS, *RULES)), *entry_points(group=GROUP).names]
    near = difflib.get_close_matches(kind + colon, known, 3, 0.5)
    what = f"did you mean {' or '.join(near)}?" if near else f"give a folder, a hub id, or one of {', '.join(known)}"
    raise UserError(f"there is no judge {spec!r}; {what}")


def named(given: str) -> tuple[str, str]:
    """Splits NAME=JUDGE into the name to show and the judge. Without a name, both are the same.

    Example:
        >>> named("AltCLIP=/data/altclip")
        ('AltCLIP', '/data/altclip')
    """
    name, equals, spec = given.partition("=")
    return (name, spec) if equals and name and spec and not Path(given).exists() else (given, given)
