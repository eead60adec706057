"""Loads the models that a stage starts from, and writes the model that it makes."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPModel,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    XLMRobertaModel,
)

from altdiffusion_clip.checkpoints.model_ids import fetch, looks_local, resolve
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.files import atomic_folder
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.config import MODEL, RunConfig
from altdiffusion_clip.training.machines import copy_to_all
from altdiffusion_clip.training.model_card import write_card

logger = logging.getLogger(__name__)
TEXT_ENCODER = "text_encoder"


@functools.cache
def place_of(name: str) -> Path:
    """The folder of a model. A hub id is downloaded completely.

    Raises:
        UserError: it is a single file, or a hub id that cannot be downloaded.
    """
    place = Path(resolve(name)).expanduser()
    if place.is_file():
        raise UserError(f"{name} is a single file; make a folder of it first: altdiffusion convert {name} FOLDER")
    if place.is_dir() or looks_local(str(place)):
        return place
    try:
        return fetch(name)
    except OSError as error:
        raise UserError(f"cannot fetch {name}: {one_line(error)}") from error


def load(what: str, name: str, loader: Callable[..., Any], **kwargs: Any) -> Any:
    """Loads a part of a model, and turns any error into one line.

    Raises:
        UserError: the model does not exist, or is of another kind.
    """
    place = place_of(name)
    if not place.exists():
        raise UserError(f"there is no {place}, which is to be {what}; give a folder or a hub id")
    try:
        return loader(place, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"cannot load {name} as {what}: {one_line(error)}") from error


def subfolder_of(name: str, *names: str) -> dict[str, str]:
    """The first of several subfolders that a model has, as an argument for `from_pretrained`."""
    for subfolder in names:
        if (place_of(name) / subfolder).is_dir():
            return {"subfolder": subfolder}
    return {}


def is_altclip(name: str) -> bool:
    """Whether a folder or hub id is an AltCLIP, not a text encoder or a pipeline."""
    place = place_of(name)
    if (place / "model_index.json").is_file():
        return False
    if subfolder_of(name, TEXT_ENCODER) and not (place / "config.json").is_file():
        return False
    return load("an AltCLIP", name, AutoConfig.from_pretrained).model_type == "altclip"


def load_altclip(name: str) -> tuple[AltCLIPScorer, PreTrainedTokenizerBase]:
    """Loads an AltCLIP, alone or in a pipeline's folder, and its tokenizer.

    An AltCLIP has no place for m18's second projection, so a text encoder of m18's beside it replaces its text tower.
    """
    scorer = load("an AltCLIP", name, AltCLIPScorer.from_pretrained)
    beside = subfolder_of(name, TEXT_ENCODER)
    if beside:
        loader = RobertaSeriesModelWithTransformation.from_pretrained
        encoder = load("the text encoder", name, loader, dtype=torch.float32, **beside)
        if encoder.transformation_pre is not None:
            scorer.text_model = encoder
    return scorer, scorer.processor.tokenizer


def write_altclip(scorer: AltCLIPScorer, folder: Path) -> None:
    """Writes an AltCLIP as `load_altclip` reads it."""
    scorer.save_pretrained(folder)
    if scorer.text_model.transformation_pre is not None:
        scorer.text_model.save_pretrained(folder / TEXT_ENCODER)


def load_teacher_text(name: str) -> tuple[CLIPTextModel, PreTrainedTokenizerBase]:
    """The frozen text tower of any CLIP in transformers' layout, and its tokenizer.

    Args:
        name: a CLIPModel, a CLIPTextModel, or a Stable Diffusion folder.
    """
    text_encoder, tokenizer = subfolder_of(name, "text_encoder"), subfolder_of(name, "tokenizer")
    teacher = load("the teacher", name, CLIPTextModel.from_pretrained, dtype=torch.float32, **text_encoder)
    reader = load("the teacher's tokenizer", name, AutoTokenizer.from_pretrained, **tokenizer)
    return teacher.requires_grad_(False).eval(), reader


def load_clip(name: str) -> CLIPModel:
    """Loads a complete CLIP."""
    return load("the teacher", name, CLIPModel.from_pretrained, dtype=torch.float32)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a text encoder, an XLM-R or an AltDiffusion folder."""
    return load("the tokenizer", name, AutoTokenizer.from_pretrained, **subfolder_of(name, "tokenizer"))


def load_student(
    name: str, project_dim: int, seed: int = 0, pre_transformation: bool = False
) -> tuple[RobertaSeriesModelWithTransformation, PreTrainedTokenizerBase]:
    """Loads a student: an AltDiffusion's text encoder, or a plain XLM-R with a new projection.

    Args:
        name: a folder or hub id of a text encoder, an AltDiffusion or any XLM-R. A folder with only a config.json gives
            a new student.
        project_dim: width of the teacher's embedding.
        seed: of new weights.
        pre_transformation: give a plain XLM-R m18's second projection, for the penultimate layer.

    Raises:
        UserError: it cannot be loaded, or its projection does not have the teacher's width.
    """
    place = subfolder_of(name, "text_encoder")
    config = load("the student", name, AutoConfig.from_pretrained, **place)
    tokenizer = load_tokenizer(name)
    torch.manual_seed(seed)
    ours: dict[str, Any] = {"project_dim": project_dim, "has_pre_LN": True}
    if pre_transformation:
        ours["has_pre_transformation"] = True
    if config.model_type not in ("xlm-roberta", "roberta", RobertaSeriesConfig.model_type):
        raise UserError(f"{name} is a {config.model_type}; the student is an XLM-R or an AltDiffusion text encoder")
    files = (place_of(name) / place.get("subfolder", "")).iterdir()
    has_weights = any(path.suffix in (".safetensors", ".bin") for path in files)
    known = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "architectures")}
    if getattr(config, "project_dim", None) is not None and has_weights:
        student = load(
            "the student", name, RobertaSeriesModelWithTransformation.from_pretrained, dtype=torch.float32, **place
        )
        if student.config.project_dim != project_dim:
            raise UserError(
                f"the student {name} projects to {student.config.project_dim} numbers and the teacher embeds into "
                f"{project_dim}; choose a teacher of the student's width, or begin with a plain XLM-R"
            )
        if student.pre_LN is None:
            student.pre_LN = torch.nn.LayerNorm(student.config.hidden_size, eps=student.config.layer_norm_eps)
            student.config.has_pre_LN = True
            logger.warning("%s has no pre_LN, which the pooled reading needs; a new one is trained", name)
    else:
        student = RobertaSeriesModelWithTransformation(RobertaSeriesConfig(**{**known, **ours}))
        if has_weights:
            body = load(
                "the student", name, XLMRobertaModel.from_pretrained, dtype=torch.float32, add_pooling_layer=False
            )
            student.roberta.load_state_dict(body.state_dict())
    # AltCLIP was trained without dropout. Without it, padding is computed as one token (see the text encoder).
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    student.config.hidden_dropout_prob = student.config.attention_probs_dropout_prob = 0.0
    return student, tokenizer


def save_model(accelerator: Accelerator, config: RunConfig, write: Callable[[Path], None]) -> Path:
    """Writes the finished model with a card to the run's `model` folder, completely or not at all, in the main process.

    Returns:
        The folder.
    """
    destination = config.output / MODEL
    if accelerator.is_main_process and not destination.exists():
        with atomic_folder(destination) as temporary:
            write(temporary)
            write_card(temporary, config)
    accelerator.wait_for_everyone()
    copy_to_all(destination, accelerator)
    return destination
