"""The CLIP head over the text encoder. It scores how well pictures and prompts fit.

The head is a vision tower and two projections (AltCLIP, arXiv 2211.06679). The text tower is the same module that
conditions the UNet, so a pipeline and its scorer hold it in memory once.
"""

import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AltCLIPConfig,
    AltCLIPProcessor,
    AltCLIPTextConfig,
    AltCLIPVisionModel,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.altclip.modeling_altclip import AltCLIPOutput, image_text_contrastive_loss
from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES

from altdiffusion_clip.adapters import adapters_off
from altdiffusion_clip.checkpoints.altclip import KEY_MAPPING, TEXT_TOWER
from altdiffusion_clip.checkpoints.layouts import Checkpoint, open_checkpoint
from altdiffusion_clip.checkpoints.model_ids import (
    HUB_ARGUMENTS,
    component_folder,
    fetch_folder,
    resolve_scorer,
)
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors, weight_files
from altdiffusion_clip.errors import CheckpointError
from altdiffusion_clip.heads import altclip_of, check_towers, execution_device, processor_of, tensors_like
from altdiffusion_clip.images import BrokenImage, ImageSource, load_images, name_of
from altdiffusion_clip.long_pictures import middle_of_long
from altdiffusion_clip.offloading import WORD_EMBEDDINGS
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.scores import RankedImage, Ranking, Scores, ranked, without_score
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

logger = logging.getLogger(__name__)
__all__ = ["AltCLIPScorer", "RankedImage", "Ranking", "Scores"]


class AltCLIPScorer(PreTrainedModel):
    """AltCLIP, over a text encoder that a diffusion pipeline can share.

    Loads and saves the layout of transformers' AltCLIPModel.

    Example:
        >>> scorer = AltCLIPScorer.from_pretrained("emoji-m18")
        >>> from altdiffusion_clip.emoji.concepts import concepts, find_ground
        >>> from altdiffusion_clip.emoji.renders import Placement, render
        >>> pictures = [render(find_ground("blue"), (thing, Placement())) for thing in concepts()[:8]]
        >>> scorer.similarity(["猫", "a dog"], pictures).shape
        torch.Size([2, 8])
        >>> scorer.rank("一只猫", pictures)[0].index
        0
    """

    config_class = AltCLIPConfig
    config: AltCLIPConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["XLMRobertaEmbeddings", "XLMRobertaLayer", "AltCLIPEncoderLayer", "AltCLIPVisionEmbeddings"]
    _keys_to_ignore_on_load_unexpected = [r"pooler", r"position_ids"]

    def __init__(
        self,
        config: AltCLIPConfig,
        text_model: RobertaSeriesModelWithTransformation | None = None,
        offload_embeddings: bool = False,
    ) -> None:
        super().__init__(config)
        if text_model is None:
            text_config = text_encoder_config(config.text_config)
            text_config._attn_implementation = config._attn_implementation
            text_model = RobertaSeriesModelWithTransformation(text_config, offload_embeddings=offload_embeddings)
        self.text_model = text_model
        if offload_embeddings:
            self._keys_to_ignore_on_load_unexpected = [*self._keys_to_ignore_on_load_unexpected, WORD_EMBEDDINGS]
        self.vision_model = AltCLIPVisionModel(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.project_dim, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.processor: AltCLIPProcessor | None = None
        self._followed: tuple[torch.device, torch.dtype] | None = None
        self.post_init()

    # ---------------------------------------------------------------- loading and saving

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Self:
        """Loads a scorer and its processor.

        Args:
            pretrained_model_name_or_path: "emoji-m18", a folder or hub id in the layout of transformers' AltCLIPModel,
                a diffusers folder that has such a folder named `scorer`, or a single file of FlagAI's.
            *args: as in transformers.
            **kwargs: as in transformers (`dtype`, `revision`, `device_map`, `quantization_config`, ...); the default
                dtype is float32. With `offload_embeddings=True` the word embeddings, almost half of the text
                tower, stay in their file, memory-mapped; scores are the same. For a single file see
                `from_single_file`.

        Raises:
            OSError: there is no such checkpoint.
            CheckpointError: it is not an AltCLIP, or it is damaged. The message says which.
        """
        if pretrained_model_name_or_path is None:  # transformers' way to load from a state_dict
            return super().from_pretrained(None, *args, **kwargs)
        place, subfolder = resolve_scorer(pretrained_model_name_or_path)
        if Path(place).is_file():
            return cls.from_single_file(place, **kwargs)
        subfolder = kwargs.pop("subfolder", subfolder)
        if Path(place).is_dir():
            folder = fetch_folder(place, subfolder)
            checkpoint = open_checkpoint(folder)
            if any(file.parent != folder for file in altclip_of(checkpoint).files):
                return cls._from_checkpoint(checkpoint, None, **kwargs)  # a head beside its text encoder
        if subfolder:
            kwargs["subfolder"] = subfolder
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        kwargs.setdefault("key_mapping", KEY_MAPPING)
        loaded = super().from_pretrained(place, *args, **kwargs)
        scorer = loaded[0] if kwargs.get("output_loading_info", False) else loaded
        if kwargs.get("offload_embeddings"):
            files = weight_files(component_folder(place, **kwargs), kwargs.get("variant"))
            scorer.text_model.attach_embeddings(CheckpointTensors(*files)[f"{TEXT_TOWER}{WORD_EMBEDDINGS}.weight"])
        hub = ("subfolder", *HUB_ARGUMENTS)
        scorer.processor = AltCLIPProcessor.from_pretrained(place, **{k: kwargs[k] for k in hub if k in kwargs})
        return loaded

    @classmethod
    def from_single_file(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] | None = None,
        tokenizer: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads the AltCLIP inside a single file of FlagAI's.

        Args:
            path: the file.
            config: a diffusers folder of the same sizes, with its AltCLIP in `scorer`; needed only for unpublished
                sizes.
            tokenizer: a folder or hub id that has the tokenizer, should the file bring none.
            **kwargs: `dtype` (default float32), `offload_embeddings`, `device_map`, `quantization_config`, as in
                transformers.

        Raises:
            CheckpointError: the file contains no AltCLIP or is damaged, or its tokenizer was not found.
        """
        return cls._from_checkpoint(
            open_checkpoint(Path(path), None if config is None else Path(config)), tokenizer, **kwargs
        )

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, tokenizer: str | os.PathLike[str] | None, **kwargs: Any) -> Self:
        tensors = altclip_of(checkpoint)
        offload = kwargs.pop("offload_embeddings", False)
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.float32)
        scorer = cls.from_pretrained(
            None,
            config=AltCLIPConfig(**checkpoint.configs["altclip"]),
            state_dict=tensors.together(tensors),
            key_mapping=KEY_MAPPING,
            offload_embeddings=offload,
            **kwargs,
        )
        if offload:
            scorer.text_model.attach_embeddings(tensors[f"{TEXT_TOWER}{WORD_EMBEDDINGS}.weight"])
        scorer.processor = processor_of(checkpoint, tokenizer)
        return scorer.eval()

    @classmethod
    def from_pipeline(
        cls, pipeline: Any, head: str | os.PathLike[str] | None = None, allow_other_tower: bool = False, **hub: Any
    ) -> Self:
        """Puts a CLIP head on a pipeline's text encoder, which both then share.

        Only the head of the checkpoint is kept. Its text tower is read for comparison and dropped. If the pipeline is
        moved, converted or offloaded (`enable_model_cpu_offload`) later, the head follows at its next use.

        Args:
            pipeline: a diffusers pipeline with our text encoder.
            head: the AltCLIP that was trained with this text encoder: "emoji-m18", a folder or hub id in the layout of
                transformers' AltCLIPModel, or a FlagAI single file. By default the `scorer` beside the pipeline.
            allow_other_tower: accept a text encoder other than the one the head was trained with.
            **hub: `revision`, `token`, `cache_dir`, `local_files_only`, for a hub id; `config` and `tokenizer`, as
                in `from_single_file`, for a single file.

        Raises:
            TypeError: the pipeline's text encoder has another class.
            ValueError: its weights are not in memory, after `enable_sequential_cpu_offload`.
            OSError: the head does not exist.
            CheckpointError: it is not an AltCLIP, is damaged, or was trained with another text encoder. The message
                names the first tensor that differs.
        """
        body = pipeline.text_encoder
        if not isinstance(body, RobertaSeriesModelWithTransformation):
            raise TypeError(
                f"the pipeline's text encoder is a {type(body).__name__}; an AltCLIP head needs AltDiffusion's"
            )
        if body.device.type == "meta":
            raise ValueError(
                "the text encoder is offloaded piece by piece; make the scorer before enable_sequential_cpu_offload()"
            )
        config_folder, tokenizer = hub.pop("config", None), hub.pop("tokenizer", None)
        place, subfolder = resolve_scorer(head if head is not None else pipeline.config._name_or_path)
        path = Path(place) if Path(place).is_file() else fetch_folder(place, subfolder, **hub)
        checkpoint = open_checkpoint(path, None if config_folder is None else Path(config_folder))
        tensors = altclip_of(checkpoint)
        check_towers(body, tensors, allow_other_tower)
        if body.pre_LN is None:
            body.pre_LN = nn.LayerNorm(body.config.hidden_size, eps=body.config.layer_norm_eps)
            body.pre_LN.load_state_dict({k: tensors[f"{TEXT_TOWER}pre_LN.{k}"].float() for k in ("weight", "bias")})
            body.pre_LN.to(body.device, body.dtype)
            body.config.has_pre_LN = True
        # The head is on the meta device until its tensors are loaded, and the shared body is left alone.
        with no_init_weights(), init_empty_weights(include_buffers=False):
            scorer = cls(AltCLIPConfig(**checkpoint.configs["altclip"]), text_model=body)
        own = tensors_like(tensors, [name for name in tensors if not name.startswith(TEXT_TOWER)], body)
        missing, unexpected = scorer.load_state_dict(own, strict=False, assign=True)
        missing = [name for name in missing if not name.startswith(TEXT_TOWER)]
        if missing:
            raise CheckpointError(f"{path} is not a whole AltCLIP: {missing[0]} is missing")
        for name in unexpected:
            logger.info("%s: %s is not used", path, name)
        scorer.vision_model.to(body.device)  # its buffers
        scorer._followed = body.device, body.dtype
        scorer.processor = processor_of(checkpoint, tokenizer)
        return scorer.eval()

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """Saves the weights in the layout of transformers' AltCLIPModel, and the processor."""
        state = kwargs.pop("state_dict", None) or self.state_dict()
        # m18's second projection belongs to the pipeline. AltCLIPModel has no place for it.
        state = {k: v for k, v in state.items() if not k.startswith("text_model.transformation_pre.")}
        super().save_pretrained(save_directory, state_dict=state, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings, which transformers' quantizers and PEFT ask for."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word embeddings."""
        self.text_model.set_input_embeddings(value)

    # ---------------------------------------------------------------- features

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Projects tokenised prompts without normalising: float (batch, projection_dim).

        Tokens beyond the last position are dropped with a warning, because torchmetrics' CLIPScore passes captions of
        any length.
        """
        most = self.text_model.most_tokens
        if input_ids.shape[1] > most:
            logger.warning("a text has %d tokens and only the first %d are read", input_ids.shape[1], most)
            input_ids = input_ids[:, :most]
            attention_mask = None if attention_mask is None else attention_mask[:, :most]
            token_type_ids = None if token_type_ids is None else token_type_ids[:, :most]
        outputs = self.text_model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self.text_projection(outputs.pooler_output)

    def get_image_features(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Projects processed pictures without normalising: float (batch, projection_dim).

        Args:
            pixel_values: float (batch, 3, side, side), from the processor.
            interpolate_pos_encoding: allow other sides than the tower was trained with.
        """
        outputs = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        return self.visual_projection(outputs.pooler_output)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> AltCLIPOutput | tuple[Any, ...]:
        """Computes the logits of all pairs, logit_scale · cosine, as transformers' AltCLIPModel does.

        Args:
            input_ids: int64 (texts, length).
            pixel_values: float (images, 3, side, side).
            attention_mask: int64 (texts, length).
            token_type_ids: as XLMRobertaModel's.
            position_ids: as XLMRobertaModel's.
            return_loss: also CLIP's contrastive loss; texts and images must be pairs.
            interpolate_pos_encoding: allow pictures of other sides than the tower was trained with.
            output_attentions: also in the towers' outputs (needs the "eager" attention).
            output_hidden_states: also in the towers' outputs.
            return_dict: an `AltCLIPOutput` (default), or a tuple without the Nones.

        Returns:
            `logits_per_image` (images, texts), its transpose `logits_per_text`, the unit vectors `text_embeds` and
            `image_embeds`, and the towers' outputs; `last_hidden_state` of the text tower is projected there.
        """
        more = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        seen = self.vision_model(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **more)
        read = self.text_model(
            input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, position_ids=position_ids, **more
        )
        text = F.normalize(self.text_projection(read.pooler_output), dim=-1)
        image = F.normalize(self.visual_projection(seen.pooler_output), dim=-1)
        per_text = self.logit_scale.exp() * text @ image.T
        output = AltCLIPOutput(
            loss=image_text_contrastive_loss(per_text) if return_loss else None,
            logits_per_image=per_text.T,
            logits_per_text=per_text,
            text_embeds=text,
            image_embeds=image,
            text_model_output=BaseModelOutputWithPooling(
                last_hidden_state=self.text_model.pooled(read.last_hidden_state),
                pooler_output=read.pooler_output,
                hidden_states=read.hidden_states,
                attentions=read.attentions,
            ),
            vision_model_output=seen,
        )
        return_dict = self.config.return_dict if return_dict is None else return_dict
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def encode_texts(self, texts: str | Sequence[str], batch_size: int = 256, max_length: int | None = None) -> Tensor:
        """Embeds texts of any length and language.

        A text longer than 77 tokens is cut, with a warning that quotes what was lost. A pipeline's adapters on the text
        encoder are meant for drawing, so they are turned off meanwhile.

        Args:
            texts: one or several.
            batch_size: texts at a time.
            max_length: tokens to read of each, including special ones; 77 by default, and at most the text encoder's
                positions.

        Returns:
            Unit vectors, float32 (texts, projection_dim), on the scorer's device.
        """
        self.follow()
        texts = [texts] if isinstance(texts, str) else list(texts)
        with adapters_off(self.text_model):
            embeds = [
                self.get_text_features(
                    *(t.to(self.device) for t in tokenize(self._processor.tokenizer, batch, max_length))
                )
                for batch in _batches(texts, batch_size)
            ]
        return self._unit(embeds)

    @torch.no_grad()
    def encode_images(
        self, images: ImageSource | Sequence[ImageSource], batch_size: int = 32
    ) -> tuple[Tensor, list[BrokenImage]]:
        """Embeds pictures. Those that cannot be read get a vector of NaNs, and are listed.

        Args:
            images: PIL pictures, paths, tensors (3, height, width) or arrays (height, width, 3), or a mix of these.
            batch_size: pictures in memory and on the device at a time.

        Returns:
            Unit vectors, float32 (images, projection_dim), on the scorer's device; and the broken ones.
        """
        self.follow()
        sources = as_list(images)
        embeds = torch.full((len(sources), self.config.projection_dim), torch.nan, device=self.device)
        broken: list[BrokenImage] = []
        for start in range(0, len(sources), batch_size):
            read, places, bad = load_images(sources[start : start + batch_size])
            broken += [
                BrokenImage(start + b.index, name_of(sources[start + b.index], start + b.index), b.reason) for b in bad
            ]
            if read:
                processor = self._processor.image_processor
                pixels = processor([middle_of_long(i, processor) for i in read], return_tensors="pt").pixel_values
                features = self.get_image_features(pixels.to(self.device, self.vision_model.dtype))
                embeds[torch.tensor(places, device=self.device) + start] = self._unit([features])
        return embeds, broken

    # ---------------------------------------------------------------- scores

    def similarity(
        self, texts: str | Sequence[str], images: ImageSource | Sequence[ImageSource], batch_size: int = 32
    ) -> Tensor:
        """Computes the cosine of every text with every picture.

        Returns:
            float32 (texts, images) in [-1, 1], on the CPU. The columns of broken pictures are NaN, and a warning names
            each of them.
        """
        embeds, broken = self.encode_images(images, batch_size)
        for image in broken:
            logger.warning("skipped %s", image)
        return (self.encode_texts(texts) @ embeds.T).cpu()

    def score(
        self, texts: str | Sequence[str], images: ImageSource | Sequence[ImageSource], batch_size: int = 32
    ) -> Scores:
        """Scores pairs: text i with picture i, or one text with every picture.

        Returns:
            One score for each picture.

        Raises:
            ValueError: the number of texts is neither 1 nor that of the pictures.
        """
        sources = as_list(images)
        texts = [texts] if isinstance(texts, str) else list(texts)
        if len(texts) not in (1, len(sources)):
            raise ValueError(f"{len(texts)} texts for {len(sources)} images: give one text, or one for each image")
        embeds, broken = self.encode_images(sources, batch_size)
        cosine = (self.encode_texts(texts) * embeds).sum(1).cpu()
        return Scores(cosine, without_score(cosine, broken, [name_of(s, i) for i, s in enumerate(sources)]))

    def rank(self, prompt: str, images: ImageSource | Sequence[ImageSource], batch_size: int = 32) -> Ranking:
        """Orders pictures by how well they fit a prompt, best first. Equal scores keep their order."""
        sources = as_list(images)
        names = [name_of(source, place) for place, source in enumerate(sources)]
        scale = self.logit_scale.detach().float().exp().item()
        return ranked(self.score(prompt, sources, batch_size), names, scale)

    @property
    def is_shared(self) -> bool:
        """Whether the text tower belongs to a pipeline, which then decides its device."""
        return self._followed is not None

    @torch.inference_mode(mode=False)
    def follow(self) -> None:
        """Moves the head to the device and dtype of the text encoder, in case the pipeline has changed them.

        `pipe.to(...)` and diffusers' offloading know only the pipeline's own components.
        """
        place = execution_device(self.text_model), self.text_model.dtype
        if self._followed in (None, place):
            return
        for part in (self.text_projection, self.vision_model, self.visual_projection):
            part.to(*place)
        scale = self.logit_scale
        self.logit_scale = nn.Parameter(scale.detach().to(place[0]), requires_grad=scale.requires_grad)
        self._followed = place

    @property
    def _processor(self) -> AltCLIPProcessor:
        if self.processor is None:
            raise ValueError("this scorer has no processor; load it with from_pretrained or set scorer.processor")
        return self.processor

    def _unit(self, features: list[Tensor]) -> Tensor:
        if not features:
            return torch.empty(0, self.config.projection_dim, device=self.device)
        return F.normalize(torch.cat(features).float(), dim=-1)


# transformers' zero-shot pipeline checks the name of the class, and logs an error for any other.
MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES["altclip_scorer"] = AltCLIPScorer.__name__


def text_encoder_config(config: AltCLIPTextConfig) -> RobertaSeriesConfig:
    """The text tower of an AltCLIP as a `RobertaSeriesConfig`."""
    shared = RobertaSeriesConfig().to_dict().keys() & config.to_dict().keys()
    fields = {key: getattr(config, key) for key in shared if key not in ("model_type", "architectures", "dtype")}
    return RobertaSeriesConfig(**fields)


def as_list(images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
    """One picture, a batch in an array, or any iterable of pictures."""
    if isinstance(images, (torch.Tensor, np.ndarray)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (Image.Image, str, os.PathLike, io.IOBase)):
        return [images]  # type: ignore[list-item]
    return list(images)  # type: ignore[arg-type]


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
