"""Aligns a UNet with a frozen text encoder, which is how Stable Diffusion learns more languages.

AltDiffusion (arXiv 2308.09991) trains first only the keys and values of the cross-attention, which read the text, then
the whole UNet. With a CLIP as text encoder, the same program trains an English diffusion model.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from altdiffusion_clip.checkpoints.generation_config import read_generation_config
from altdiffusion_clip.checkpoints.merge import reads_text
from altdiffusion_clip.checkpoints.model_ids import SCORER, resolve_scorer
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_path
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.configs import AlignConfig, DreamBoothConfig
from altdiffusion_clip.training.data.image_text import Captioned, CaptionedPictures
from altdiffusion_clip.training.diffusion import (
    Denoiser,
    LatentsOfCaptions,
    check_scheduler,
    embed_captions,
    embed_latents,
)
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.loop import mean_loss, optimise, step_generator
from altdiffusion_clip.training.models import (
    MODEL,
    is_altclip,
    load,
    load_altclip,
    load_tokenizer,
    place_of,
    save_model,
    subfolder_of,
)
from altdiffusion_clip.training.recorded import RecordedLoss

SAMPLE_STEPS = 20
MOST_DIFFERENCE = 0.1
"""The allowed error of a compiled gradient, relative to its norm. bfloat16 alone causes some percent."""


@dataclass
class Parts:
    """The parts of a diffusion model while its UNet is being trained.

    Attributes:
        unet: to train.
        vae: frozen.
        scheduler: of the model, for drawing.
        noise_schedule: the same schedule, for training.
        text_encoder: ours, or a CLIPTextModel.
        tokenizer: of the text encoder.
        scorer: the AltCLIP of the text encoder, if there is one.
        generation_config: the model's own defaults for drawing.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: Any
    noise_schedule: DDIMScheduler
    text_encoder: Any
    tokenizer: PreTrainedTokenizerBase
    scorer: AltCLIPScorer | None = None
    generation_config: dict[str, Any] = field(default_factory=dict)

    def pipeline(self) -> StableDiffusionPipeline:
        """A pipeline of these parts: AltDiffusion, or Stable Diffusion with a CLIP."""
        ours = isinstance(self.text_encoder, RobertaSeriesModelWithTransformation)
        pipeline = (AltDiffusionPipeline if ours else StableDiffusionPipeline)(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        if ours:
            pipeline.generation_config.update(self.generation_config)
        return pipeline

    def take(self, denoiser: Denoiser) -> None:
        """Loads trained weights."""
        self.unet = denoiser.unet
        if denoiser.text_encoder is not None:
            self.text_encoder = denoiser.text_encoder

    def save(self, folder: Path) -> None:
        """Writes a folder for pipelines, with the AltCLIP in `scorer` if there is one."""
        self.pipeline().save_pretrained(folder)
        if self.scorer is not None:
            self.scorer.save_pretrained(folder / SCORER)


def align(config: AlignConfig, pictures: Captioned | None = None) -> Path | Estimate:
    """Trains a UNet. Continues a run in the same folder.

    Args:
        config: of the run.
        pictures: to use instead of `config.data`.

    Returns:
        The folder of the pipeline; for a dry run, an estimate.

    Raises:
        UserError: a model or a file cannot be used. The message says which and why.
    """
    accelerator = new_accelerator(config)
    save_settings(config, accelerator)
    parts = load_parts(config.model, config.text_encoder)
    freeze_all_but(parts.unet, lambda name: True)
    mix = {"languages": config.languages, "temperature": config.temperature, "weights": config.weights}
    mix |= {"encoding": config.encoding}
    pictures = pictures or prepare_pictures(config.data, config, parts, accelerator, **mix)
    if config.dry_run:
        size = 2 * len(pictures) * parts.vae.config.latent_channels * (pictures.side // scale_of(parts.vae)) ** 2
        return estimate(
            dataclasses.replace(config, steps=config.keys_and_values_steps + config.steps),
            parts.unet,
            tokens=pictures.tokens.lengths,
            cache_bytes=size,
            examples=len(pictures),
            beside=[parts.text_encoder],
        )
    if (config.output / MODEL).exists():
        return config.output / MODEL
    conditioning = new_conditioning(config, parts, accelerator)
    source = new_source(config, parts, pictures, conditioning, accelerator)
    denoiser = Denoiser(parts.unet, parts.noise_schedule, conditioning)
    if accelerator.device.type == "cpu":
        # With so few rows, the backward pass of torch's fused attention takes twice as long on CPUs.
        parts.unet.set_attn_processor(AttnProcessor())
        move_channels_last(parts.unet, accelerator)

    if config.compile:
        check_compiled(denoiser, source, accelerator)

    if config.keys_and_values_steps:
        freeze_all_but(parts.unet, reads_text)
        # A different seed, or both phases would start with the same batches and noise.
        first = dataclasses.replace(
            config, steps=config.keys_and_values_steps, seconds=0.0, ema_decay=0.0, seed=config.seed + 1
        )
        folder = config.output / "keys-and-values"
        denoiser = optimise(denoiser, source, first, "align keys and values", accelerator=accelerator, folder=folder)
        accelerator.free_memory()
        parts.take(denoiser)
        freeze_all_but(parts.unet, lambda name: True)
    denoiser = optimise(
        denoiser,
        source,
        config,
        "align",
        backward=RecordedLoss() if config.compile else mean_loss,
        accelerator=accelerator,
        validate=sampler(parts, config, accelerator),
    )
    parts.take(denoiser)
    parts.unet.cpu()
    parts.text_encoder.cpu()
    return save_model(accelerator, config, parts.save)


def new_conditioning(config: AlignConfig, parts: Parts, accelerator: Accelerator) -> Conditioning:
    """Makes the conditioning of a run, and compiles its UNet if asked to, for fixed shapes."""
    if config.compile:
        move_channels_last(parts.unet, accelerator)
        parts.unet.compile(dynamic=False)
    return Conditioning(parts.text_encoder.to(accelerator.device), parts.tokenizer.pad_token_id, config.compile)


def move_channels_last(unet: UNet2DConditionModel, accelerator: Accelerator) -> None:
    """Stores weights as GPUs convolve them in half precision, and CPUs a tenth faster. FSDP cannot shard them so."""
    if accelerator.distributed_type != DistributedType.FSDP:
        unet.to(memory_format=torch.channels_last)


def check_compiled(denoiser: Denoiser, source: LatentsOfCaptions, accelerator: Accelerator) -> None:
    """Compares the gradient of a compiled UNet with that of the uncompiled one, on one batch of the run.

    (PyTorch 2.13's compiler for CPUs gives some UNets no gradient below an upsampler.)

    Raises:
        UserError: they differ.
    """
    part = source.load(source.draw(step_generator(0, 0)))
    part = {name: value.to(accelerator.device) for name, value in part.items()}
    denoiser.to(accelerator.device).train()  # in training mode, or it would be compiled again
    gradients = []
    for stance in ("force_eager", "default"):
        with torch.compiler.set_stance(stance), accelerator.autocast():
            denoiser(**part).backward()
        found = [p.grad for p in denoiser.parameters() if p.grad is not None]
        gradients.append(torch.cat([gradient.float().flatten() for gradient in found]))
        denoiser.zero_grad(set_to_none=True)
    eager, compiled = gradients
    if (eager - compiled).norm() > MOST_DIFFERENCE * eager.norm():
        raise UserError(
            f"PyTorch {torch.__version__} compiles this UNet wrongly, since its gradient differs; omit --compile"
        )


def freeze_all_but(module: nn.Module, is_trained: Callable[[str], bool]) -> None:
    """Makes only the parameters with some names trainable."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(is_trained(name))


def scale_of(vae: AutoencoderKL) -> int:
    """The width of one latent in pixels."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def load_parts(model: str, text_encoder: str = "") -> Parts:
    """Loads the parts of a diffusers folder, with another text encoder if one is named.

    Raises:
        UserError: a part cannot be loaded, or the text encoder's width does not fit the UNet.
    """
    unet = load(
        "the model's UNet", model, UNet2DConditionModel.from_pretrained, subfolder="unet", torch_dtype=torch.float32
    )
    vae = load("the model's VAE", model, AutoencoderKL.from_pretrained, subfolder="vae", torch_dtype=torch.float32)
    schedule = load("the model's scheduler", model, DDIMScheduler.from_pretrained, subfolder="scheduler")
    check_scheduler(schedule)
    name = text_encoder or model
    scorer = None
    kwargs = {"dtype": torch.float32, **subfolder_of(name, "text_encoder")}
    # An AltCLIP is its own scorer. A pipeline's folder may contain one.
    _, subfolder = resolve_scorer(place_of(name))
    config = load("the text encoder", name, AutoConfig.from_pretrained, **subfolder_of(name, "text_encoder"))
    if (subfolder and text_encoder) or is_altclip(name):
        scorer, tokenizer = load_altclip(name)
        encoder = scorer.text_model
    elif config.model_type in ("clip", "clip_text_model"):
        encoder = load("the text encoder", name, CLIPTextModel.from_pretrained, **kwargs)
        tokenizer = load("the tokenizer", name, AutoTokenizer.from_pretrained, **subfolder_of(name, "tokenizer"))
    else:
        encoder = load(
            "the text encoder",
            name,
            RobertaSeriesModelWithTransformation.from_pretrained,
            **kwargs,
        )
        tokenizer = load_tokenizer(name)
        if subfolder:
            scorer = load("an AltCLIP", name, AltCLIPScorer.from_pretrained)
    encoder.requires_grad_(False).eval()
    vae.requires_grad_(False).eval()
    width = getattr(encoder.config, "project_dim", None) or encoder.config.hidden_size
    if unet.config.cross_attention_dim != width:
        raise UserError(
            f"the text encoder {name} gives states of {width} numbers and the UNet of {model} reads "
            f"{unet.config.cross_attention_dim}; choose those of one base"
        )
    stated = read_generation_config(str(place_of(model)))
    return Parts(unet, vae, own_scheduler(model), schedule, encoder, tokenizer, scorer, stated)


def own_scheduler(model: str) -> Any:
    """Loads the scheduler of a model, with the class that its folder names."""
    config = load("the model's scheduler", model, DDIMScheduler.load_config, subfolder="scheduler")
    kind = getattr(diffusers, str(config.get("_class_name")), DDIMScheduler)
    return kind.from_config(config)


def prepare_pictures(
    data: Sequence[str | Path],
    config: AlignConfig | DreamBoothConfig,
    parts: Parts,
    accelerator: Accelerator,
    **mix: Any,
) -> CaptionedPictures:
    """Prepares captioned pictures at the resolution of a run or its model.

    Args:
        data: files or folders.
        config: of the run.
        parts: of the model.
        accelerator: of the run.
        **mix: languages and their shares, as in `CaptionedPictures.prepare`.

    Raises:
        UserError: the resolution does not fit the model, or no picture can be read.
    """
    scale = scale_of(parts.vae)
    side = config.resolution or parts.unet.config.sample_size * scale
    if side % scale:
        raise UserError(f"resolution must be a multiple of {scale}, not {side}")
    folder = config.data_folder("pictures")
    return CaptionedPictures.prepare(data, side, parts.tokenizer, **folder, accelerator=accelerator, **mix)


def new_source(
    config: AlignConfig, parts: Parts, pictures: Captioned, conditioning: Conditioning, accelerator: Accelerator
) -> LatentsOfCaptions:
    """Batches of precomputed latents with captions or their states."""
    latents = embed_latents(parts.vae.to(accelerator.device), pictures, accelerator, config.workers)
    parts.vae.cpu()
    empty = parts.tokenizer("").input_ids
    states = None
    if config.cache_text_states:
        if not isinstance(pictures, CaptionedPictures):
            raise UserError("cache_text_states is for captions in files; these are made up as they are needed")
        made_from = {"text_encoder": config.text_encoder or config.model, "texts": len(pictures.texts)}
        states = embed_captions(conditioning, pictures, empty, pictures.folder / "states", made_from, accelerator)
    return LatentsOfCaptions(
        pictures,
        latents,
        config.batch_size,
        len(parts.noise_schedule.alphas_cumprod),
        parts.tokenizer.pad_token_id,
        empty,
        config.caption_dropout,
        conditioning,
        states,
        config.timestep_sampling,
        config.logit_mean,
        config.pure_noise,
    )


def sampler(
    parts: Parts, config: AlignConfig | DreamBoothConfig, accelerator: Accelerator
) -> Callable[[nn.Module, int], dict[str, float]] | None:
    """The validation of a run: it draws its sample prompts, if it has any."""

    def validate(task: nn.Module, step: int) -> dict[str, float]:
        draw_samples(parts, config, step, accelerator)
        return {}

    return validate if config.sample_prompts else None


def draw_samples(parts: Parts, config: AlignConfig | DreamBoothConfig, step: int, accelerator: Accelerator) -> None:
    """Draws a run's sample prompts from always the same noise, into its `samples` folder and for its trackers."""
    pipeline = parts.pipeline()
    pipeline.set_progress_bar_config(disable=True)
    side = config.resolution or None
    pictures: list[Image.Image] = []
    # Samples have other shapes, which are not worth compiling for.
    with torch.random.fork_rng(), torch.compiler.set_stance("force_eager"):
        for prompt in config.sample_prompts:
            generator = torch.Generator().manual_seed(config.seed)
            pictures += pipeline.to(parts.unet.device)(
                prompt,
                num_inference_steps=SAMPLE_STEPS,
                height=side,
                width=side,
                guidance_scale=config.sample_guidance,
                generator=generator,
            ).images
    parts.vae.cpu()
    with atomic_path(config.output / "samples" / f"step-{step:06d}.png") as path:
        make_image_grid(pictures, rows=1, cols=len(pictures)).save(path)
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            tracker.log_images({"samples": np.stack([np.asarray(picture) for picture in pictures])}, step)
