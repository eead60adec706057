"""Recognises the layout of a checkpoint by its contents, and gives its parts the same names in every layout."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from altdiffusion_clip.checkpoints import ldm
from altdiffusion_clip.checkpoints.altclip import TEXT_TOWER, published_name
from altdiffusion_clip.checkpoints.architectures import CONFIG_FILES, expected_shapes, published_configs
from altdiffusion_clip.checkpoints.model_ids import SCORER
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors, has_weights
from altdiffusion_clip.errors import CheckpointError
from altdiffusion_clip.offloading import WORD_EMBEDDINGS

EMBEDDED_CONFIGS = "altdiffusion_clip.configs"
"""The safetensors metadata key under which `convert` stores configurations as JSON."""

EMBEDDED_FILES = ldm.CONDITIONING + "files."
"""The prefix of the byte tensors in which `convert` stores the tokenizer."""

_IS_CONFIG = re.compile(r"(\w+/)?\w+\.json")

TODAYS_NAMES = {"vae": ldm.todays_vae_name}
"""Renaming functions for parts whose tensors have other names in some published folders."""


class Layout(StrEnum):
    """The published layouts."""

    DIFFUSERS = "AltDiffusion, a diffusers folder"
    WEBUI = "AltDiffusion, a single file as the WebUIs write it"
    FLAGAI = "AltDiffusion and its AltCLIP, a single file as FlagAI writes it"
    ALTCLIP = "AltCLIP, a folder in transformers' layout"


@dataclass
class Checkpoint:
    """A published checkpoint.

    Attributes:
        path: its folder or file.
        layout: which of the published ones.
        tensors: of its parts, out of "unet", "vae", "text_encoder" and "altclip", under the names of diffusers' folders
            and published AltCLIPs. The text tower of a FlagAI file or an AltCLIP is in both of the last two.
        ema: the moving average of the UNet's tensors under the same names, if the checkpoint has both. If it has only
            the average, that is its UNet.
        unet_is_average: whether the UNet is the moving average.
        configs: the configuration of each part.
        config_folder: the folder of the configurations in diffusers' layout; None if they are in the file itself.
        embedded: the configuration files inside the single file, by relative path.
    """

    path: Path
    layout: Layout
    tensors: dict[str, CheckpointTensors]
    ema: CheckpointTensors | None = None
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_folder: Path | None = None
    embedded: dict[str, str] = field(default_factory=dict)
    unet_is_average: bool = False

    @property
    def is_single_file(self) -> bool:
        """Whether it is a single file in the LDM layout."""
        return self.layout in (Layout.WEBUI, Layout.FLAGAI)

    def shape(self, part: str, name: str) -> torch.Size:
        """The shape of a tensor in diffusers' layout."""
        shape = self.tensors[part].shape(name)
        if part == "vae" and self.is_single_file and len(shape) == 4 and ".attentions." in name:
            return torch.Size(shape[:2])
        return shape


def open_checkpoint(path: Path, config: Path | None = None) -> Checkpoint:
    """Recognises a folder or file, and reads the names and shapes of its tensors.

    Args:
        path: a folder or a single file.
        config: a diffusers folder with the configurations of a single file; by default those in the file, or those of
            the published checkpoint of its size.

    Raises:
        CheckpointError: it has none of the published layouts, or is damaged. The message says what it is.
    """
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file or folder {path}")
    return _open_single_file(path, config)


def is_altdiffusion_file(path: Path) -> bool:
    """Whether a file is an AltDiffusion in the LDM layout. False for anything else, readable or not."""
    try:
        tensors = CheckpointTensors(path)
    except CheckpointError:
        return False
    flagai = _is_flagai(tensors)
    return any(_text_tower_name(name, flagai) for name in tensors)


def embedded_file(path: Path, name: str) -> bytes | None:
    """The bytes of a tokenizer file inside a single file, or None."""
    tensors = CheckpointTensors(path)
    key = EMBEDDED_FILES + name
    return bytes(tensors[key].numpy()) if key in tensors else None


def _open_folder(folder: Path) -> Checkpoint:
    index = folder / "model_index.json"
    if index.is_file():
        return _open_diffusers_folder(folder, read_json(index))
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if config.get("model_type") == "altclip":
            return Checkpoint(folder, Layout.ALTCLIP, _altclip_parts(folder), configs={"altclip": config})
        named = config.get("_class_name") or (config.get("architectures") or [config.get("model_type", "unknown")])[0]
        raise CheckpointError(f"{folder} is a {named}, and neither an AltDiffusion nor an AltCLIP")
    if has_weights(folder):
        raise CheckpointError(
            f"{folder} has weights but neither a model_index.json nor a config.json; download all of it"
        )
    raise CheckpointError(
        f"{folder} has no model_index.json and no config.json; give the folder of a pipeline or an AltCLIP, "
        "a single file, or a hub id"
    )


def _open_diffusers_folder(folder: Path, index: dict[str, Any]) -> Checkpoint:
    kind = (index.get("text_encoder") or [None, None])[1]
    if kind != "RobertaSeriesModelWithTransformation":
        named = index.get("_class_name", "diffusers pipeline")
        raise CheckpointError(
            f"{folder} is a {named} whose text encoder is {kind or 'missing'} and not AltDiffusion's; "
            "load it with diffusers' own pipelines"
        )
    tensors, configs = {}, {}
    for part, file in CONFIG_FILES.items():
        place = (folder / file).parent
        if part == "altclip" and not (folder / SCORER / "config.json").is_file():
            continue
        if not (folder / file).is_file():
            raise CheckpointError(f"{folder} has no {file}; download all of it")
        tensors[part] = (
            _altclip_tensors(place) if part == "altclip" else CheckpointTensors.in_folder(place, TODAYS_NAMES.get(part))
        )
        configs[part] = read_json(folder / file)
    for part in ("safety_checker", "image_encoder"):
        if has_weights(folder / part) and index.get(part, [None])[0]:
            CheckpointTensors.in_folder(folder / part)  # finds a damaged file now, not when it is used
    return Checkpoint(folder, Layout.DIFFUSERS, tensors, configs=configs, config_folder=folder)


def _altclip_tensors(folder: Path) -> CheckpointTensors:
    """The tensors of an AltCLIP's folder.

    An AltCLIP beside its text encoder, such as `scorer` in a pipeline's folder, need not repeat it: missing tensors are
    read from there.

    Raises:
        CheckpointError: tensors are in neither place.
    """
    own = CheckpointTensors.in_folder(folder, published_name)
    beside = folder.parent / "text_encoder"
    if f"{TEXT_TOWER}{WORD_EMBEDDINGS}.weight" in own:
        return own
    if not has_weights(beside):
        raise CheckpointError(
            f"{folder} has no text tower, and there is no {beside} to take it from; download all of it"
        )
    return own.joined(CheckpointTensors.in_folder(beside, _name_in_altclip))


def _name_in_altclip(name: str) -> str | None:
    """An AltCLIP's name for a text encoder's tensor; None for m18's second projection, which AltCLIPs lack."""
    return None if name.startswith("transformation_pre.") else published_name(TEXT_TOWER + name)


def _altclip_parts(folder: Path) -> dict[str, CheckpointTensors]:
    altclip = _altclip_tensors(folder)
    return {"altclip": altclip, "text_encoder": altclip.select(_without(TEXT_TOWER))}


def _open_single_file(path: Path, config: Path | None) -> Checkpoint:
    everything = CheckpointTensors(path)
    flagai = _is_flagai(everything)
    text_encoder = everything.select(lambda name: _text_tower_name(name, flagai))
    if not text_encoder:
        raise CheckpointError(f"{path} is {_stranger(everything)}, and neither an AltDiffusion nor an AltCLIP")
    configs, folder, embedded = _configurations(everything, path, text_encoder, config)
    tensors = {"text_encoder": text_encoder}
    if flagai:
        tensors["altclip"] = everything.select(_altclip_name)
    parts, ema = drawing_parts(everything, configs)
    tensors |= parts
    only_average = bool(ema) and not tensors["unet"]
    if only_average:
        tensors["unet"], ema = ema, CheckpointTensors()
    for part, what in (("unet", "UNet"), ("vae", "autoencoder")):
        if not tensors[part]:
            raise CheckpointError(f"{path} has AltDiffusion's text encoder but no {what}")
    layout = Layout.FLAGAI if flagai else Layout.WEBUI
    return Checkpoint(path, layout, tensors, ema or None, configs, folder, embedded, only_average)


def _configurations(
    everything: CheckpointTensors, path: Path, text_encoder: CheckpointTensors, given: Path | None
) -> tuple[dict[str, dict[str, Any]], Path | None, dict[str, str]]:
    """A single file's configurations by part, their folder if any, and those inside the file."""
    if given is None and EMBEDDED_CONFIGS in everything.metadata:
        try:
            texts = json.loads(everything.metadata[EMBEDDED_CONFIGS])
            # These names become paths, and they come from whoever wrote the file.
            embedded = {name: text for name, text in texts.items() if _IS_CONFIG.fullmatch(name)}
            configs = {part: json.loads(embedded[file]) for part, file in CONFIG_FILES.items() if part != "altclip"}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the configurations in {path} are damaged ({error}); name others (config=)"
            ) from error
        return configs, None, embedded
    folder = given or published_configs(text_encoder)
    if folder is None:
        raise CheckpointError(
            f"{path} has none of the published sizes; name a diffusers folder of the same sizes (config=, --config)"
        )
    return {p: read_json(folder / f) for p, f in CONFIG_FILES.items() if (folder / f).is_file()}, folder, {}


def drawing_parts(
    everything: CheckpointTensors, configs: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, CheckpointTensors], CheckpointTensors]:
    """The UNet and the autoencoder of an LDM single file, under diffusers' names.

    Args:
        everything: all tensors in the file.
        configs: of the parts "unet" and "vae".

    Returns:
        The parts "unet" and "vae", and the moving average of the UNet's tensors. What the file lacks is empty.
    """
    to_unet, to_vae = (_diffusers_names(part, configs) for part in ("unet", "vae"))
    averages = {ldm.ema_name(name): diffusers_name for name, diffusers_name in to_unet.items()}
    parts = {
        "unet": everything.select(
            lambda name: to_unet.get(name.removeprefix(ldm.UNET)) if name.startswith(ldm.UNET) else None
        ),
        "vae": everything.select(
            lambda name: to_vae.get(name.removeprefix(ldm.VAE)) if name.startswith(ldm.VAE) else None
        ),
    }
    return parts, everything.select(averages.get)


def _diffusers_names(part: str, configs: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Maps LDM's names of a part's tensors, without their prefix, to diffusers' names."""
    return {ldm_name(part, configs[part])(name): name for name in expected_shapes(part, configs[part])}


def ldm_name(part: str, config: Mapping[str, Any]) -> Callable[[str], str]:
    """A function that gives LDM's name of a part's tensor, without its prefix."""
    if part == "vae":
        blocks = len(config["block_out_channels"])
        return lambda name: ldm.vae_name(name, blocks)
    with_attention = [i for i, block in enumerate(config["up_block_types"]) if "Attn" in block]
    layers = config.get("layers_per_block", 2)
    return lambda name: ldm.unet_name(name, layers, with_attention)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a configuration.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is damaged; download it again")
    return content


def _is_flagai(tensors: Mapping[str, Any]) -> bool:
    return f"{ldm.CONDITIONING}{TEXT_TOWER}transformation.weight" in tensors


def _altclip_name(name: str) -> str | None:
    inner = _without(ldm.CONDITIONING)(name)
    return None if inner is None or name.startswith(EMBEDDED_FILES) else published_name(inner)


def _text_tower_name(name: str, flagai: bool) -> str | None:
    if flagai:
        inner = _altclip_name(name)
        return None if inner is None else _without(TEXT_TOWER)(inner)
    inner = _without(ldm.CONDITIONING)(name)
    known = ("roberta.", "transformation.", "transformation_pre.", "pre_LN.", "logit_scale")
    return inner if inner is not None and inner.startswith(known) else None


def _without(prefix: str) -> Callable[[str], str | None]:
    return lambda name: name[len(prefix) :] if name.startswith(prefix) else None


def _stranger(tensors: CheckpointTensors) -> str:
    """Says what a file without AltDiffusion's text encoder is."""
    names = list(tensors)

    def any_starts(*starts: str) -> bool:
        return any(name.startswith(starts) for name in names)

    for is_it, what in (
        (any_starts("conditioner.embedders."), "a Stable Diffusion XL"),
        (any_starts("cond_stage_model.transformer.text_model."), "a Stable Diffusion 1"),
        (any_starts("cond_stage_model.model."), "a Stable Diffusion 2"),
        (any_starts("model.diffusion_model."), "a diffusion model without AltDiffusion's text encoder"),
        (any_starts("lora_", "unet.", "text_encoder.") and any("lora" in n for n in names), "a LoRA"),
        (any_starts("text_model.roberta."), "the weights of an AltCLIP (name its folder, which has its config.json)"),
        (any_starts("roberta.") and "transformation.weight" in tensors, "the text encoder alone"),
        (any_starts("roberta.", "bert.", "embeddings.word_embeddings", "encoder.layer."), "a BERT or RoBERTa"),
        (any_starts("text_model.", "vision_model."), "a CLIP"),
        (any_starts("down_blocks.", "encoder.", "decoder."), "one part of a diffusers folder (name the whole folder)"),
        (not names, "empty"),
    ):
        if is_it:
            return what
    return f"something unknown ({names[0]}, ...)"
