"""Stage 2, contrastive: the student's texts against pictures, with a frozen vision tower.

AltCLIP (arXiv 2211.06679, section 3.2); the frozen tower is LiT's (arXiv 2111.07991).
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AltCLIPConfig,
    AltCLIPProcessor,
    AltCLIPTextConfig,
    CLIPImageProcessor,
    CLIPModel,
    PreTrainedTokenizerBase,
)

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.retrieval import recall_at
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.augmentation import augmented
from altdiffusion_clip.training.configs import ContrastiveConfig
from altdiffusion_clip.training.data.arrays import fill_rows, path_for
from altdiffusion_clip.training.data.image_text import (
    Captioned,
    CaptionedPictures,
    check_pictures,
    leave_out_broken,
    read_pixels,
)
from altdiffusion_clip.training.data.pixels import normalised
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.grad_cache import cached_backward
from altdiffusion_clip.training.loop import Tensors, optimise
from altdiffusion_clip.training.losses import info_nce
from altdiffusion_clip.training.models import (
    MODEL,
    is_altclip,
    load,
    load_altclip,
    load_clip,
    load_student,
    place_of,
    save_model,
    write_altclip,
)
from altdiffusion_clip.training.temperature import clamp_temperature

logger = logging.getLogger(__name__)
POOL = 4
"""Batches of pairs to choose one batch of similar length from."""


def contrastive(config: ContrastiveConfig, pictures: Captioned | None = None) -> Path | Estimate:
    """Runs stage 2. Continues a run in the same folder.

    Args:
        config: of the run.
        pictures: to use instead of `config.data`.

    Returns:
        The folder of the AltCLIP; for a dry run, an estimate.

    Raises:
        UserError: a model or a file cannot be used. The message says which and why.
    """
    accelerator = new_accelerator(config)
    save_settings(config, accelerator)
    scorer, tokenizer = load_scorer(config)
    choose_trained(scorer, config)
    side = scorer.config.vision_config.image_size
    how = {"accelerator": accelerator, "languages": config.languages, "encoding": config.encoding}
    pictures = pictures or CaptionedPictures.prepare(
        config.data,
        side,
        tokenizer,
        **config.data_folder("pictures"),
        **how,
        temperature=config.temperature,
        weights=config.weights,
    )
    if config.dry_run:
        size = 0 if config.augment else 2 * len(pictures) * scorer.config.projection_dim
        return estimate(config, scorer, tokens=pictures.tokens.lengths, cache_bytes=size, examples=len(pictures))
    if (config.output / MODEL).exists():
        return config.output / MODEL
    scorer.to(accelerator.device)
    features = None
    if config.augment:
        check_pictures(pictures, accelerator, config.workers)
    else:
        features = embed_pictures(scorer, pictures, accelerator, config.workers)
    validate = None
    if config.validation:
        held_out = CaptionedPictures.prepare(
            config.validation, side, tokenizer, **config.data_folder("validation"), **how
        )
        lacking = sorted(set(pictures.languages) - set(held_out.languages))
        if lacking:
            logger.warning("the validation data have no captions in %s, so these are not measured", ", ".join(lacking))
        held_out_features = embed_pictures(scorer, held_out, accelerator)

        def validate(task: TextHalf, step: int) -> dict[str, float]:
            return caption_recall(task.scorer, held_out, held_out_features)

    scorer = train_contrastive(scorer, pictures, features, config, accelerator, validate)
    return save_model(accelerator, config, lambda folder: write_altclip(scorer, folder))


def train_contrastive(
    scorer: AltCLIPScorer,
    pictures: Captioned,
    features: np.ndarray | None,
    config: ContrastiveConfig,
    accelerator: Accelerator | None = None,
    validate: Any = None,
) -> AltCLIPScorer:
    """Trains the text tower, its projection and the temperature. The vision half is frozen.

    Args:
        scorer: to train, in place.
        pictures: with captions.
        features: of the frozen tower, float (pictures, dim), from `embed_pictures`; None to encode augmented pictures
            at every step.
        config: of the run.
        accelerator: of the run.
        validate: as in `optimise`.
    """
    choose_trained(scorer, config)
    # Scalars cannot be sharded.
    scorer.logit_scale = nn.Parameter(scorer.logit_scale.detach().reshape(1))
    source = Pairs(pictures, features, scorer, config)

    def loss_of(**named: Tensor) -> Tensor:
        shown, said = named.pop("pictures"), named.pop("texts")
        image_embeds = named.pop("image_embeds")
        positives = None
        if config.negatives == "others":
            positives = pictures.positives(said.cpu(), shown.cpu()).to(said.device)
        return info_nce(named["text_embeds"], image_embeds.float(), named["logit_scale"], positives)

    def backward(accelerator: Accelerator, model: nn.Module, parts: list[Tensors]) -> Tensor:
        fixed = ("pictures", "texts") if config.augment else ("pictures", "texts", "image_embeds")
        return cached_backward(accelerator, model, parts, loss_of, fixed)

    scorer = optimise(
        TextHalf(scorer),
        source,
        config,
        "contrastive",
        backward=backward,
        accelerator=accelerator,
        validate=validate,
        after_step=clamp_temperature,
    ).scorer
    scorer.logit_scale = nn.Parameter(scorer.logit_scale.detach().reshape(()))
    return scorer


def choose_trained(scorer: AltCLIPScorer, config: ContrastiveConfig) -> None:
    """Makes only the text tower, its projection and the temperature trainable, or what the config leaves of them."""
    scorer.requires_grad_(True)
    encoder = scorer.text_model
    # m18's second projection belongs to the pipeline and is not trained here.
    frozen = [scorer.vision_model, scorer.visual_projection, encoder.transformation_pre]
    if config.keep_conditioning:
        frozen += parts_of_conditioning(encoder)
    for part in frozen:
        if part is not None:
            part.requires_grad_(False)


def parts_of_conditioning(encoder: RobertaSeriesModelWithTransformation) -> list[nn.Module | None]:
    """The parts of a text encoder that a UNet's conditioning depends on."""
    roberta = encoder.roberta
    if encoder.transformation_pre is None:
        return [roberta, encoder.transformation]
    return [roberta.embeddings, *roberta.encoder.layer[:-1], encoder.pre_LN, encoder.transformation_pre]


class TextHalf(nn.Module):
    """Embeds the texts of stage 2, and pictures whose features are not precomputed.

    Args:
        scorer: with a frozen vision half.
    """

    def __init__(self, scorer: AltCLIPScorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Returns the embeddings, float (batch, dim), and the logarithm of the inverse temperature."""
        embeds = {
            "text_embeds": self.scorer.get_text_features(input_ids, attention_mask),
            # A copy, because a sharded parameter is gone after the forward pass.
            "logit_scale": self.scorer.logit_scale.sum(),
        }
        if pixel_values is not None:
            with torch.no_grad():
                embeds["image_embeds"] = self.scorer.get_image_features(pixel_values)
        return embeds


class Pairs:
    """Batches of captions with the features of their pictures.

    Args:
        pictures: with captions.
        features: float (pictures, dim), memory-mapped; None to load augmented pictures.
        scorer: its processor says how to normalise pictures.
        config: of the run.
    """

    def __init__(
        self, pictures: Captioned, features: np.ndarray | None, scorer: AltCLIPScorer, config: ContrastiveConfig
    ) -> None:
        self._pictures, self._features, self._count = pictures, features, config.batch_size
        self._pad = scorer.text_model.config.pad_token_id
        self._mean, self._std = normalisation(scorer)
        self._mirror = config.mirror

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws pictures with one caption each, of similar length."""
        shown, said = self._pictures.draw_similar(self._count, POOL, generator)
        drawn = {"pictures": shown, "texts": said}
        if self._features is None:
            drawn["seed"] = torch.randint(2**31, (self._count,), generator=generator)
        return drawn

    def load(self, drawn: Tensors) -> Tensors:
        """Loads tokens, and features or pictures."""
        ids, mask = self._pictures.tokenised(drawn["texts"], self._pad)
        batch = {"input_ids": ids, "attention_mask": mask, "pictures": drawn["pictures"], "texts": drawn["texts"]}
        if self._features is not None:
            batch["image_embeds"] = torch.from_numpy(self._features[drawn["pictures"].numpy()]).float()
        else:
            pixels = normalised(self._pictures.pixels_of(drawn["pictures"]), self._mean, self._std)
            batch["pixel_values"] = torch.stack(
                [augmented(p, int(seed), self._mirror) for p, seed in zip(pixels, drawn["seed"], strict=True)]
            )
        return batch


def normalisation(scorer: AltCLIPScorer) -> tuple[list[float], list[float]]:
    """The mean and standard deviation per channel that the vision tower expects."""
    assert scorer.processor is not None
    return list(scorer.processor.image_processor.image_mean), list(scorer.processor.image_processor.image_std)


def embed_pictures(
    scorer: AltCLIPScorer, pictures: Captioned, accelerator: Accelerator | None = None, workers: int = 0
) -> np.ndarray:
    """The frozen tower's features of all pictures, computed once and memory-mapped: float16 (pictures, dim).

    Pictures that cannot be read have NaNs and are left out.
    """
    mean, std = normalisation(scorer)

    @torch.no_grad()
    def compute(found: tuple[Tensor, Tensor]) -> Tensor:
        pixels, readable = (each.to(scorer.device) for each in found)
        seen = normalised(pixels, mean, std).to(scorer.vision_model.dtype)
        return torch.where(readable[:, None], scorer.get_image_features(seen), torch.nan).half()

    vision = nn.ModuleList([scorer.vision_model, scorer.visual_projection])
    # In the folder of the pictures, which is recreated when they change.
    features = fill_rows(
        path_for(pictures.folder / "features.bin", vision, pictures.is_shared),
        len(pictures),
        (scorer.config.projection_dim,),
        "float16",
        compute,
        read=lambda start, stop: read_pixels(pictures, torch.arange(start, stop)),
        workers=workers,
        chunk=64,
        accelerator=accelerator,
        description="image features",
        is_shared=pictures.is_shared,
    )
    leave_out_broken(pictures, features, accelerator)
    return features


@torch.no_grad()
def caption_recall(
    scorer: AltCLIPScorer, pictures: CaptionedPictures, features: np.ndarray, most: int = 1000
) -> dict[str, float]:
    """Text-to-image recall at 1 on held-out pictures, by language, in percent.

    Returns:
        `r1_en`, `r1_zh`, ...
    """
    # Unreadable pictures are nearest to nothing.
    images = F.normalize(torch.from_numpy(np.array(features[:most])).float(), dim=-1).nan_to_num(0.0)
    shown = torch.arange(len(images))
    recalls = {}
    for code in pictures.languages:
        said = pictures.first_captions(code)[: len(images)]
        places = [i for i, text in enumerate(said) if text is not None]
        if not places:
            continue
        texts = torch.tensor([said[i] for i in places])
        rows = []
        for part in texts.split(128):
            ids, mask = pictures.tokenised(part, scorer.text_model.config.pad_token_id)
            rows.append(scorer.get_text_features(ids.to(scorer.device), mask.to(scorer.device)).float().cpu())
        similarity = F.normalize(torch.cat(rows), dim=-1) @ images.T
        recalls[f"r1_{code}"] = recall_at(similarity, pictures.positives(texts, shown), 1)
    return recalls


def load_scorer(config: ContrastiveConfig) -> tuple[AltCLIPScorer, PreTrainedTokenizerBase]:
    """Loads the AltCLIP to train, or builds it from the student of stage 1 and the teacher."""
    if not config.teacher and is_altclip(config.student):
        return load_altclip(config.student)
    if not config.teacher:
        raise UserError("give --teacher, the CLIP whose vision tower and projections are taken")
    teacher = load_clip(config.teacher)
    student, tokenizer = load_student(config.student, teacher.config.text_config.hidden_size, config.seed)
    return new_scorer(teacher, student, tokenizer, image_processor_of(config.teacher, teacher)), tokenizer


def image_processor_of(name: str, teacher: CLIPModel) -> CLIPImageProcessor:
    """A CLIP's image processor: its own, or CLIP's default at its size."""
    if (place_of(name) / "preprocessor_config.json").is_file():
        return load("the teacher's image processor", name, CLIPImageProcessor.from_pretrained)
    side = teacher.config.vision_config.image_size
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def new_scorer(
    teacher: CLIPModel,
    student: RobertaSeriesModelWithTransformation,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: CLIPImageProcessor,
) -> AltCLIPScorer:
    """An AltCLIP before stage 2: the distilled student with the teacher's vision half and projections."""
    text = {key: value for key, value in student.config.to_dict().items() if key in AltCLIPTextConfig().to_dict()}
    vision = teacher.config.vision_config.to_dict()
    for values in (text, vision):
        values.pop("model_type")
    config = AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=teacher.config.projection_dim)
    scorer = AltCLIPScorer(config, text_model=student)
    scorer.vision_model.load_state_dict(teacher.vision_model.state_dict())
    scorer.visual_projection.load_state_dict(teacher.visual_projection.state_dict())
    scorer.text_projection.load_state_dict(teacher.text_projection.state_dict())
    scorer.logit_scale.data.copy_(teacher.logit_scale.data)
    scorer.processor = AltCLIPProcessor(image_processor, tokenizer)
    return scorer.eval()
