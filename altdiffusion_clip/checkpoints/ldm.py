"""Maps diffusers' tensor names to those of single files in the LDM layout.

The layout comes from CompVis' latent-diffusion. FlagAI and the WebUIs write it. The functions map from diffusers to
LDM. Applied to all names of a model, they give the reverse table too.
"""

import re
from collections.abc import Iterable

UNET = "model.diffusion_model."
VAE = "first_stage_model."
EMA = "model_ema."
CONDITIONING = "cond_stage_model."
"""The WebUIs store the text encoder here, FlagAI a whole AltCLIP with the text tower as its `text_model.`."""

_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_VAE_ATTENTION = {
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}
_VAE_ATTENTION_UNTIL_0_15 = {"query.": "to_q.", "key.": "to_k.", "value.": "to_v.", "proj_attn.": "to_out.0."}


def unet_name(name: str, layers_per_block: int, blocks_with_attention: Iterable[int]) -> str:
    """LDM's name of a tensor of diffusers' UNet2DConditionModel.

    Args:
        name: diffusers' name.
        layers_per_block: of the UNet's configuration.
        blocks_with_attention: the up blocks that have attention; their upsampler comes after it.

    Raises:
        KeyError: LDM's UNet has no such tensor.

    Example:
        >>> unet_name("down_blocks.1.resnets.0.conv1.weight", 2, [1, 2, 3])
        'input_blocks.4.0.in_layers.2.weight'
    """
    for end, ldm in _UNET_ENDS.items():
        if name.startswith(end):
            rest = name[len(end) :]
            return ldm + (_replace_start(rest, _UNET_RESNET) if ".resnets." in end else rest)
    side, block_text, kind, place_text, rest = _parts(name)
    block, place = int(block_text), int(place_text)
    if side == "down_blocks":
        stem, first = "input_blocks", 1 + block * (layers_per_block + 1)
        if kind == "downsamplers":
            return f"{stem}.{first + layers_per_block}.0.op.{rest.removeprefix('conv.')}"
    else:
        stem, first = "output_blocks", block * (layers_per_block + 1)
        if kind == "upsamplers":
            return f"{stem}.{first + layers_per_block}.{2 if block in set(blocks_with_attention) else 1}.{rest}"
    if kind == "resnets":
        return f"{stem}.{first + place}.0.{_replace_start(rest, _UNET_RESNET)}"
    return f"{stem}.{first + place}.1.{rest}"


def vae_name(name: str, blocks: int) -> str:
    """LDM's name of a tensor of diffusers' AutoencoderKL.

    Args:
        name: diffusers' name.
        blocks: the number of blocks of the encoder and of the decoder.

    Raises:
        KeyError: LDM's autoencoder has no such tensor.

    Example:
        >>> vae_name("decoder.up_blocks.0.resnets.1.conv1.weight", 4)
        'decoder.up.3.block.1.conv1.weight'
    """
    half, _, inner = name.partition(".")
    if half in ("quant_conv", "post_quant_conv"):
        return name
    if inner.startswith(("conv_in.", "conv_out.")):
        return name
    if inner.startswith("conv_norm_out."):
        return f"{half}.norm_out.{inner.removeprefix('conv_norm_out.')}"
    if inner.startswith("mid_block.attentions.0."):
        return f"{half}.mid.attn_1.{_replace_start(inner.removeprefix('mid_block.attentions.0.'), _VAE_ATTENTION)}"
    if inner.startswith("mid_block.resnets."):
        number, _, rest = inner.removeprefix("mid_block.resnets.").partition(".")
        return f"{half}.mid.block_{int(number) + 1}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    side, block_text, kind, place, rest = _parts(inner)
    stem = f"{half}.down.{block_text}" if side == "down_blocks" else f"{half}.up.{blocks - 1 - int(block_text)}"
    if kind in ("downsamplers", "upsamplers"):
        return f"{stem}.{kind.removesuffix('rs')}.{rest}"
    return f"{stem}.block.{place}.{rest.replace('conv_shortcut', 'nin_shortcut')}"


def ema_name(name: str) -> str:
    """LDM's name for the moving average of a UNet tensor, from its LDM name without the prefix.

    Example:
        >>> ema_name("input_blocks.0.0.weight")
        'model_ema.diffusion_modelinput_blocks00weight'
    """
    return f"{EMA}diffusion_model{name.replace('.', '')}"


def todays_vae_name(name: str) -> str:
    """diffusers' current name of an autoencoder's tensor, from the one before 0.15, which published folders may have.

    Example:
        >>> todays_vae_name("encoder.mid_block.attentions.0.query.bias")
        'encoder.mid_block.attentions.0.to_q.bias'
    """
    stem, marker, rest = name.partition(".attentions.0.")
    for old, new in _VAE_ATTENTION_UNTIL_0_15.items():
        if rest.startswith(old):
            return stem + marker + new + rest[len(old) :]
    return name


def is_vae_attention_matrix(name: str) -> bool:
    """Whether this tensor of the autoencoder is a 1x1 convolution in LDM and a matrix in diffusers.

    Args:
        name: LDM's, without its prefix.
    """
    return re.search(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$", name) is not None


def _parts(name: str) -> tuple[str, str, str, str, str]:
    match = re.fullmatch(
        r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
    )
    if match is None:
        raise KeyError(name)
    return match[1], match[2], match[3], match[4], match[5]


def _replace_start(name: str, table: dict[str, str]) -> str:
    for start, ldm in table.items():
        if name.startswith(start):
            return ldm + name[len(start) :]
    raise KeyError(name)
