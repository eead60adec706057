"""Text to image with AltDiffusion: diffusers' own Stable Diffusion pipeline, another text encoder in it."""

import os
from typing import Any, Self

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection, XLMRobertaTokenizer

from altdiffusion_clip.checkpoints.model_ids import resolve
from altdiffusion_clip.prompts import WINDOW
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation


class AltDiffusionPipeline(StableDiffusionPipeline):
    """Draws pictures from prompts in the languages of its text encoder.

    Everything that `StableDiffusionPipeline` takes and does, this does too.

    Args:
        vae: between pictures and latents.
        text_encoder: the multilingual one.
        tokenizer: XLM-RoBERTa's. Windows longer than 77 tokens, as the m18 folder states, are set to 77.
        unet: draws latents from the text encoder's conditioning.
        scheduler: the noise schedule.
        safety_checker: as in Stable Diffusion, or None.
        feature_extractor: for the safety checker and for IP-Adapters.
        image_encoder: for IP-Adapters.
        requires_safety_checker: whether to warn if there is none.

    Example:
        >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
        >>> pipe.set_progress_bar_config(disable=True)
        >>> pipe("蓝色背景上的猫", num_inference_steps=2).images[0].size
        (64, 64)
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: RobertaSeriesModelWithTransformation,
        tokenizer: XLMRobertaTokenizer,
        unet: UNet2DConditionModel,
        scheduler: KarrasDiffusionSchedulers,
        safety_checker: StableDiffusionSafetyChecker | None,
        feature_extractor: CLIPImageProcessor | None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        requires_safety_checker: bool = True,
    ) -> None:
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            requires_safety_checker=requires_safety_checker,
        )
        if tokenizer is not None and tokenizer.model_max_length > WINDOW:
            tokenizer.model_max_length = WINDOW

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Loads a pipeline.

        Args:
            name: "emoji-m9", a folder in diffusers' layout, or a hub id such as "BAAI/AltDiffusion-m9".
            **kwargs: as in `diffusers.DiffusionPipeline.from_pretrained`.
        """
        return super().from_pretrained(resolve(name), **kwargs)
