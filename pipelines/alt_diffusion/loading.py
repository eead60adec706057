"""Loads AltDiffusion pipelines."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.checkpoints.layouts import Layout, open_checkpoint
from altdiffusion_clip.checkpoints.model_ids import HUB_ARGUMENTS, resolve
from altdiffusion_clip.errors import CheckpointError
from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation

logger = logging.getLogger("diffusers.pipelines.pipeline_utils")  # it warns about the other components already
_OF_EVERY_PART = (*HUB_ARGUMENTS, "variant", "use_safetensors", "low_cpu_mem_usage")
_GOVERN_ALL_PARTS = frozenset({"text_encoder", "unet", "device_map", "quantization_config"})
"""With these arguments, loading is left to diffusers."""


def check_variant(folder: Path, variant: str | None) -> None:
    """Checks that a folder has weights of a variant in any component, as diffusers does.

    Raises:
        ValueError: it has none.
    """
    weights = [path for path in folder.glob("*/*") if path.suffix in (".safetensors", ".bin")]
    if (
        not variant
        or not weights
        or any(f".{variant}." in path.name or f".{variant}-" in path.name for path in weights)
    ):
        return
    names = sorted(str(path.relative_to(folder)) for path in weights)
    raise ValueError(
        f"You are trying to load the model files of the `variant={variant}`, but {folder} has no such files; "
        f"it has {', '.join(names)}"
    )


class AltDiffusionLoaderMixin(DiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`from_pretrained` for every AltDiffusion pipeline. It must come before the diffusers class."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:
        """Loads a pipeline.

        Args:
            pretrained_model_name_or_path: "emoji-m18", a folder in diffusers' layout, a single file in the LDM layout,
                or a hub id such as "BAAI/AltDiffusion-m9".
            **kwargs: as in `diffusers.DiffusionPipeline.from_pretrained` (`dtype`, `variant`, `revision`,
                `local_files_only`, ...). With `offload_embeddings=True` the word embeddings, almost half of the
                text encoder, stay in their file, memory-mapped; pictures are the same.

        Raises:
            CheckpointError: the folder or file is not an AltDiffusion, or is damaged. The message says which.
            ValueError: there are no weights of the `variant`. The message lists those that exist.
        """
        place = resolve(pretrained_model_name_or_path)
        if Path(place).is_file():
            return cls.from_single_file(place, **kwargs)
        if Path(place).is_dir() and {"unet", "vae", "text_encoder"}.isdisjoint(kwargs):
            checkpoint = open_checkpoint(Path(place))
            if checkpoint.layout is not Layout.DIFFUSERS:
                raise CheckpointError(f"{place} is {checkpoint.layout}, and no pipeline; load it as an AltCLIPScorer")
            check_variant(Path(place), kwargs.get("variant"))
        offload = kwargs.pop("offload_embeddings", False)
        if offload and "text_encoder" in kwargs:
            raise ValueError("offload_embeddings is for the text encoder that is loaded; load yours with it")
        if not offload and not _GOVERN_ALL_PARTS.isdisjoint(kwargs):
            return super().from_pretrained(place, **kwargs)

        dtype = kwargs.get("dtype") or kwargs.get("torch_dtype") or torch.float32
        dtypes = dtype if isinstance(dtype, dict) else {"default": dtype}
        shared = {key: kwargs[key] for key in _OF_EVERY_PART if kwargs.get(key) is not None}

        def load(kind: Any, part: str, **more: Any) -> Any:
            part_dtype = dtypes.get(part) or dtypes.get("default") or torch.float32
            loaded = kind.from_pretrained(place, subfolder=part, dtype=part_dtype, **shared, **more)
            logger.info("Loaded %s as %s from `%s` subfolder of %s.", part, type(loaded).__name__, part, place)
            return loaded

        # While a component is being read, its file and its weights are both in memory, so the largest comes first and
        # the text encoder last. (diffusers has no fixed order.)
        if _GOVERN_ALL_PARTS.isdisjoint(kwargs):
            kwargs["unet"] = load(UNet2DConditionModel, "unet")
        pipeline = super().from_pretrained(place, text_encoder=None, **kwargs)
        text_encoder = load(RobertaSeriesModelWithTransformation, "text_encoder", offload_embeddings=offload)
        pipeline.register_modules(text_encoder=text_encoder.eval())
        return pipeline

    def register_modules(self, **kwargs: Any) -> None:
        """Registers components, as every diffusers pipeline does when it is created.

        m18's tokenizer says 512 tokens; this is set to the 77 that its UNet was trained with.
        """
        tokenizer = kwargs.get("tokenizer")
        if tokenizer is not None and tokenizer.model_max_length > WINDOW:
            tokenizer.model_max_length = WINDOW
        super().register_modules(**kwargs)

    @classmethod
    def _get_signature_types(cls) -> dict[str, tuple[type, ...]]:
        # diffusers warns about components whose types differ from those in its __init__.
        ours = {"text_encoder": (RobertaSeriesModelWithTransformation,), "tokenizer": (PreTrainedTokenizerBase,)}
        return {**super()._get_signature_types(), **ours}
