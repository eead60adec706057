"""DreamBooth (arXiv 2208.12242): teaches an AltDiffusion one thing or person from a few pictures.

Prior preservation keeps the rest: the model also trains on its own pictures of the class.
"""

import json
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path, write_text
from altdiffusion_clip.images import SUFFIXES
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.align import (
    Parts,
    freeze_all_but,
    load_parts,
    prepare_pictures,
    sampler,
)
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.configs import DreamBoothConfig
from altdiffusion_clip.training.data.captioned import CAPTIONS_FILE
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.diffusion import Denoiser, embed_latents, noise_of
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.loop import Tensors, optimise
from altdiffusion_clip.training.lora import add_lora, save_lora, trained_of
from altdiffusion_clip.training.machines import crew_of
from altdiffusion_clip.training.models import MODEL, save_model

PRIOR_STEPS = 30


def dreambooth(config: DreamBoothConfig) -> Path | Estimate:
    """Teaches a model one thing. Continues a run in the same folder.

    Args:
        config: of the run.

    Returns:
        The folder of the pipeline, or of the LoRA if there is a rank; for a dry run, an estimate.

    Raises:
        UserError: a model or a picture cannot be used. The message says which and why.
    """
    accelerator = new_accelerator(config)
    instance = instance_pictures(config.instance_images)
    save_settings(config, accelerator)
    parts = load_parts(config.model, config.text_encoder)
    if config.rank:
        add_lora(parts, config.rank, config.train_text_encoder, seed=config.seed)
    else:
        freeze_all_but(parts.unet, lambda name: True)
    if config.dry_run:
        return estimate(
            config,
            trained_of(parts, config.train_text_encoder),
            tokens=[],
            examples=len(instance) + config.class_images,
            beside=[*([] if config.train_text_encoder else [parts.text_encoder]), parts.vae],
        )
    if (config.output / MODEL).exists():
        return config.output / MODEL
    prior = draw_class(parts, config, accelerator) if config.class_prompt else []
    captions = config.output / "data" / CAPTIONS_FILE
    if crew_of(accelerator).is_first:
        said = [(p.resolve(), config.instance_prompt) for p in instance]
        said += [(p.resolve(), config.class_prompt) for p in prior]
        write_if_new(captions, "".join(json.dumps({"image": str(p), "caption": c}) + "\n" for p, c in said))
    accelerator.wait_for_everyone()
    pictures = prepare_pictures([captions], config, parts, accelerator)
    latents = embed_latents(parts.vae.to(accelerator.device), pictures, accelerator)
    parts.vae.cpu()
    conditioning = Conditioning(parts.text_encoder.to(accelerator.device), parts.tokenizer.pad_token_id)
    denoiser = Denoiser(parts.unet, parts.noise_schedule, conditioning, config.train_text_encoder)
    source = InstanceAndPrior(pictures, latents, config, parts)

    denoiser = optimise(
        denoiser, source, config, "DreamBooth", accelerator=accelerator, validate=sampler(parts, config, accelerator)
    )
    parts.take(denoiser)

    def write(folder: Path) -> None:
        if config.rank:
            save_lora(parts, folder, config.train_text_encoder)
        else:
            parts.save(folder)

    return save_model(accelerator, config, write)


class InstanceAndPrior:
    """Batches of the instance's pictures and, with a prior, as many of the class.

    Args:
        pictures: captioned with the prompt of the instance or the class.
        latents: of the pictures.
        config: of the run.
        parts: of the model.
    """

    def __init__(self, pictures: CaptionedPictures, latents: object, config: DreamBoothConfig, parts: Parts) -> None:
        self._pictures, self._latents, self._config = pictures, latents, config
        self._pad = parts.tokenizer.pad_token_id
        self._timesteps = len(parts.noise_schedule.alphas_cumprod)
        texts = [pictures.texts.text(int(pictures.of_picture[i][0])) for i in range(len(pictures))]
        # Captions are stored without surrounding blanks.
        prior = torch.tensor([bool(text) and text == config.class_prompt.strip() for text in texts])
        kept = torch.from_numpy(pictures.kept)
        self._instance, self._prior = torch.nonzero(~prior & kept).flatten(), torch.nonzero(prior & kept).flatten()
        if not len(self._instance):
            raise UserError("none of the instance's pictures can be read")
        if config.class_prompt and not len(self._prior):
            raise UserError("none of the class's pictures is left, so the prior cannot be preserved")

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws pictures, timesteps and noise."""
        count = self._config.batch_size
        shown = self._instance[torch.randint(len(self._instance), (count,), generator=generator)]
        if len(self._prior):
            others = self._prior[torch.randint(len(self._prior), (count,), generator=generator)]
            # Alternating, so that every process and part has both. With an odd number, either may have one more.
            first = int(torch.randint(2, (), generator=generator)) if count % 2 else 0
            shown = torch.where((torch.arange(count) + first) % 2 == 0, shown, others)
        return {
            "pictures": shown,
            **noise_of(self._latents.shape[1:], count, self._timesteps, generator),  # type: ignore[attr-defined]
        }

    def load(self, drawn: Tensors) -> Tensors:
        """Loads latents and tokens."""
        shown = drawn["pictures"]
        texts = torch.tensor([int(self._pictures.of_picture[i][0]) for i in shown.tolist()])
        ids, mask = self._pictures.tokenised(texts, self._pad)
        is_prior = torch.isin(shown, self._prior)
        return {
            "latents": torch.from_numpy(self._latents[shown.numpy()]).float(),  # type: ignore[index]
            "noise": drawn["noise"],
            "timesteps": drawn["timesteps"],
            "weights": torch.where(is_prior, self._config.prior_weight, 1.0),
            "input_ids": ids,
            "attention_mask": mask,
        }


def instance_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder.

    Raises:
        UserError: there are none.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise UserError(f"there is no picture in {folder}; give --instance-images a folder with some")
    return found


def draw_class(parts: Parts, config: DreamBoothConfig, accelerator: Accelerator) -> list[Path]:
    """Draws the missing pictures of the class with the untrained model."""
    folder = config.output / "class"
    files = [folder / f"{seed:05d}.png" for seed in range(config.class_images)]
    crew = crew_of(accelerator)  # whose processes draw their shares
    missing = [(seed, file) for seed, file in enumerate(files) if not file.exists()]
    missing = missing[crew.rank :: crew.size]
    crew.wait()  # all have counted before one starts
    if missing:
        pipeline = parts.pipeline().to(accelerator.device)
        pipeline.set_progress_bar_config(disable=True)
        for seed, file in tqdm(missing, desc="drawing the class", disable=not accelerator.is_main_process):
            image = pipeline(
                config.class_prompt,
                num_inference_steps=PRIOR_STEPS,
                height=config.resolution or None,
                width=config.resolution or None,
                guidance_scale=config.class_guidance,
                generator=torch.Generator().manual_seed(seed),
            ).images[0]
            with atomic_path(file) as path:
                image.save(path)
    accelerator.wait_for_everyone()
    return files


def write_if_new(path: Path, text: str) -> None:
    """Writes a text unless the file already has it, so that its time only changes with it."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
