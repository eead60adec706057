"""Prepares arguments for diffusers' `from_single_file`, which does not know AltDiffusion's text encoder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import hf_hub_download

from altdiffusion_clip.checkpoints.companions import write_companions
from altdiffusion_clip.checkpoints.layouts import Checkpoint, is_altdiffusion_file, open_checkpoint
from altdiffusion_clip.checkpoints.model_ids import HUB_ARGUMENTS
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation


@contextmanager
def single_file_arguments(pipeline_class: type, link: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Adds the configurations, tokenizer and text encoder of an AltDiffusion to the arguments of `from_single_file`.

    Args:
        pipeline_class: the class whose `from_single_file` is called. For ours, the file must be an AltDiffusion.
        link: a file, or a link to a file on the hub.
        arguments: of the call, including our own: `offload_embeddings`, and `tokenizer` as a folder or hub id.

    Yields:
        The arguments, unchanged if the file is not an AltDiffusion. The configurations exist only during the block.

    Raises:
        CheckpointError: it is not an AltDiffusion, and `pipeline_class` is one of ours.
    """
    must_be_ours = pipeline_class.__module__.startswith("altdiffusion_clip.")
    path = _local(link, arguments)
    if not must_be_ours and not is_altdiffusion_file(path):
        yield arguments
        return
    config = arguments.get("config")
    checkpoint = open_checkpoint(path, None if config is None else Path(config))
    with tempfile.TemporaryDirectory(prefix="altdiffusion-") as folder:
        tokenizer = arguments.get("tokenizer")
        names_tokenizer = isinstance(tokenizer, (str, Path))
        arguments = {key: value for key, value in arguments.items() if key != "tokenizer" or not names_tokenizer}
        hub = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
        write_companions(checkpoint, Path(folder), tokenizer if names_tokenizer else None, **hub)
        offload = arguments.pop("offload_embeddings", False)
        if "text_encoder" not in arguments:
            arguments["text_encoder"] = text_encoder_of(checkpoint, arguments, offload)
        if checkpoint.unet_is_average and "unet" not in arguments:
            arguments["unet"] = unet_of(checkpoint, arguments)
        yield {**arguments, "config": folder}


def text_encoder_of(
    checkpoint: Checkpoint, arguments: dict[str, Any], offload_embeddings: bool = False
) -> RobertaSeriesModelWithTransformation:
    """Loads the text encoder of a single file, memory-mapping tensors that have the right dtype.

    Args:
        checkpoint: the single file.
        arguments: of `from_single_file`; only `dtype` or `torch_dtype` is used.
        offload_embeddings: leave the word embeddings in the file.
    """
    tensors = checkpoint.tensors["text_encoder"]
    dtype = arguments.get("dtype") or arguments.get("torch_dtype") or torch.float32
    return RobertaSeriesModelWithTransformation.from_pretrained(
        None,
        config=RobertaSeriesConfig(**checkpoint.configs["text_encoder"]),
        state_dict=tensors.together(tensors),
        dtype=dtype,
        offload_embeddings=offload_embeddings,
    ).eval()


def unet_of(checkpoint: Checkpoint, arguments: dict[str, Any]) -> UNet2DConditionModel:
    """Loads the UNet of a single file that contains only its moving average, which diffusers would not find.

    Args:
        checkpoint: the single file.
        arguments: of `from_single_file`; only `dtype` or `torch_dtype` is used.
    """
    tensors = checkpoint.tensors["unet"]
    dtype = arguments.get("dtype") or arguments.get("torch_dtype") or torch.float32
    unet = UNet2DConditionModel.from_config(checkpoint.configs["unet"])
    unet.load_state_dict(tensors.together(tensors))
    return unet.to(dtype).eval()  # type: ignore[no-any-return]


def _local(link: str, arguments: dict[str, Any]) -> Path:
    """The path of a file. A link to the hub is downloaded first."""
    path = Path(link)
    if path.is_file() or ("/blob/" not in str(link) and "/resolve/" not in str(link)):
        return path
    from diffusers.loaders.single_file_utils import _extract_repo_id_and_weights_name

    repository, name = _extract_repo_id_and_weights_name(str(link))
    return Path(hf_hub_download(repository, name, **{key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}))
