"""The finished parts of emoji-m18: in the folders of their runs, and in the package."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer
from transformers.utils import SAFE_WEIGHTS_NAME

from altdiffusion_clip.checkpoints.altclip import TEXT_TOWER
from altdiffusion_clip.checkpoints.model_ids import SCORER, emoji_m18_folder
from altdiffusion_clip.emoji.architectures import image_processor, new_scheduler, new_unet
from altdiffusion_clip.files import atomic_folder, atomic_path
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.pipelines.alt_diffusion.saving import forget_paths
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.loop import CHECKPOINT_FILE
from altdiffusion_clip.training.models import MODEL, TEXT_ENCODER

AVERAGE = "unet.safetensors"
PACKAGED = emoji_m18_folder()
"""The folder of the model, as far as it is finished."""


def scorer_of(work: Path) -> Path:
    """The folder of the student with the best scores so far."""
    trained_on = work / "scoring" / MODEL
    return trained_on if trained_on.exists() else work / "contrastive" / MODEL


def new_pipeline(work: Path) -> AltDiffusionPipeline:
    """A pipeline of the finished parts with an untrained UNet."""
    torch.manual_seed(0)
    student = scorer_of(work)
    return AltDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae" / MODEL, torch_dtype=torch.float32),
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(student / TEXT_ENCODER, dtype=torch.float32),
        tokenizer=AutoTokenizer.from_pretrained(student),
        unet=new_unet(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_average(work: Path) -> None:
    """Writes the moving average of the UNet from its checkpoint, in half precision."""
    checkpoint = work / "align" / CHECKPOINT_FILE
    if not checkpoint.is_file():
        return
    average = torch.load(checkpoint, weights_only=True, map_location="cpu")["average"] or {}
    # Training may have moved its channels last, which safetensors cannot store.
    tensors = {name.removeprefix("unet."): tensor.half().contiguous() for name, tensor in average.items()}
    if tensors:
        with atomic_path(work / "align" / AVERAGE) as path:
            save_file(tensors, path, metadata={"format": "pt"})


def keep(work: Path, folder: Path) -> None:
    """Puts the finished parts and the current UNet into the package, in half precision."""
    if (work / "vae" / MODEL).exists() and not (folder / "vae").exists():
        with atomic_folder(folder / "vae") as place:
            AutoencoderKL.from_pretrained(work / "vae" / MODEL).half().save_pretrained(place)
    teacher = work / "teacher" / MODEL
    if teacher.exists() and not (folder / "teacher").exists():
        with atomic_folder(folder / "teacher") as place:
            CLIPModel.from_pretrained(teacher).half().save_pretrained(place)
            CLIPTokenizer.from_pretrained(teacher).save_pretrained(place)
            image_processor().save_pretrained(place)
    student = scorer_of(work)
    if student.exists() and not (folder / SCORER).exists():
        encoder = RobertaSeriesModelWithTransformation.from_pretrained(student / TEXT_ENCODER, dtype=torch.float16)
        encoder.save_pretrained(folder / TEXT_ENCODER)
        AutoTokenizer.from_pretrained(student).save_pretrained(folder / "tokenizer")
        with atomic_folder(folder / SCORER) as place:  # last, because its existence means that all three are there
            AltCLIPScorer.from_pretrained(student, dtype=torch.float16).save_pretrained(place)
            # Its text tower is already stored beside it.
            weights = place / SAFE_WEIGHTS_NAME
            beside = {TEXT_TOWER + name for name in encoder.state_dict()}
            head = {name: tensor for name, tensor in load_file(weights).items() if name not in beside}
            save_file(head, weights, metadata={"format": "pt"})
    average = work / "align" / AVERAGE
    if average.is_file():
        pipeline = new_pipeline(work)
        pipeline.unet.half().load_state_dict(load_file(average))
        pipeline.unet.save_pretrained(folder / "unet")
        pipeline.scheduler.save_pretrained(folder / "scheduler")
        pipeline.save_config(folder)
    forget_paths(folder)


def restore(work: Path, folder: Path) -> None:
    """Copies packaged parts to where the stages expect them, unless there are runs."""
    for stage, part in (("vae", "vae"), ("teacher", "teacher"), ("contrastive", SCORER)):
        place = work / stage / MODEL
        if place.exists() or not (folder / part).exists():
            continue
        with atomic_folder(place) as temporary:
            if part == SCORER:
                AltCLIPScorer.from_pretrained(folder / SCORER, dtype=torch.float16).save_pretrained(temporary)
                shutil.copytree(folder / TEXT_ENCODER, temporary / TEXT_ENCODER)
            else:
                shutil.copytree(folder / part, temporary, dirs_exist_ok=True)
