"""Small replicas of the published files, made without the project's own writer and names.

The UNet and the autoencoder are built as CompVis' latent-diffusion builds them, block after block, so that their
names and shapes are LDM's by construction. The text tower and the AltCLIP around it are those of the fixtures.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FIXTURES = Path(__file__).parents[1] / "fixtures" / "published"


def _res_block(inner: int, outer: int, time: int, groups: int) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {
        "in_layers": nn.Sequential(nn.GroupNorm(groups, inner), nn.SiLU(), nn.Conv2d(inner, outer, 3)),
        "emb_layers": nn.Sequential(nn.SiLU(), nn.Linear(time, outer)),
        "out_layers": nn.Sequential(nn.GroupNorm(groups, outer), nn.SiLU(), nn.Dropout(), nn.Conv2d(outer, outer, 3)),
    }
    if inner != outer:
        parts["skip_connection"] = nn.Conv2d(inner, outer, 1)
    return nn.ModuleDict(parts)


def _attention(inner: int, context: int) -> nn.ModuleDict:
    keys = {"to_q": nn.Linear(inner, inner, bias=False)}
    keys |= {name: nn.Linear(context, inner, bias=False) for name in ("to_k", "to_v")}
    return nn.ModuleDict({**keys, "to_out": nn.Sequential(nn.Linear(inner, inner), nn.Dropout())})


def _transformer(width: int, context: int, groups: int, linear: bool) -> nn.ModuleDict:
    gated = nn.ModuleDict({"proj": nn.Linear(width, 8 * width)})
    block = nn.ModuleDict(
        {
            "attn1": _attention(width, width),
            "ff": nn.ModuleDict({"net": nn.Sequential(gated, nn.Dropout(), nn.Linear(4 * width, width))}),
            "attn2": _attention(width, context),
            **{f"norm{i}": nn.LayerNorm(width) for i in (1, 2, 3)},
        }
    )
    projection = (lambda: nn.Linear(width, width)) if linear else (lambda: nn.Conv2d(width, width, 1))
    return nn.ModuleDict(
        {
            "norm": nn.GroupNorm(groups, width),
            "proj_in": projection(),
            "transformer_blocks": nn.ModuleList([block]),
            "proj_out": projection(),
        }
    )


class LDMUNet(nn.Module):
    """The names and shapes of latent-diffusion's UNetModel."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths, layers = config["block_out_channels"], config["layers_per_block"]
        context, groups = config["cross_attention_dim"], config["norm_num_groups"]
        linear, time = config["use_linear_projection"], 4 * widths[0]

        def transformer(width: int) -> nn.Module:
            return _transformer(width, context, groups, linear)

        self.time_embed = nn.Sequential(nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, widths[0], 3)])])
        skips, width = [widths[0]], widths[0]
        for level, outer in enumerate(widths):
            attends = "CrossAttn" in config["down_block_types"][level]
            for _ in range(layers):
                block = [_res_block(width, outer, time, groups)]
                self.input_blocks.append(nn.ModuleList(block + ([transformer(outer)] if attends else [])))
                width = outer
                skips.append(width)
            if level + 1 < len(widths):
                self.input_blocks.append(nn.ModuleList([nn.ModuleDict({"op": nn.Conv2d(width, width, 3)})]))
                skips.append(width)
        ends = [_res_block(width, width, time, groups) for _ in range(2)]
        self.middle_block = nn.ModuleList([ends[0], transformer(width), ends[1]])
        self.output_blocks = nn.ModuleList()
        for level, outer in enumerate(reversed(widths)):
            attends = "CrossAttn" in config["up_block_types"][level]
            for layer in range(layers + 1):
                block = [_res_block(width + skips.pop(), outer, time, groups)]
                block += [transformer(outer)] if attends else []
                width = outer
                if layer == layers and level + 1 < len(widths):
                    block.append(nn.ModuleDict({"conv": nn.Conv2d(width, width, 3)}))
                self.output_blocks.append(nn.ModuleList(block))
        self.out = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, 4, 3))


def _vae_block(inner: int, outer: int, groups: int) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {
        "norm1": nn.GroupNorm(groups, inner),
        "conv1": nn.Conv2d(inner, outer, 3),
        "norm2": nn.GroupNorm(groups, outer),
        "conv2": nn.Conv2d(outer, outer, 3),
    }
    if inner != outer:
        parts["nin_shortcut"] = nn.Conv2d(inner, outer, 1)
    return nn.ModuleDict(parts)


def _vae_middle(width: int, groups: int) -> nn.ModuleDict:
    convolutions = {name: nn.Conv2d(width, width, 1) for name in ("q", "k", "v", "proj_out")}
    attention = nn.ModuleDict({"norm": nn.GroupNorm(groups, width), **convolutions})
    blocks = [_vae_block(width, width, groups) for _ in range(2)]
    return nn.ModuleDict({"block_1": blocks[0], "attn_1": attention, "block_2": blocks[1]})


class LDMAutoencoder(nn.Module):
    """The names and shapes of latent-diffusion's AutoencoderKL."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        widths, layers = config["block_out_channels"], config["layers_per_block"]
        groups, last = config["norm_num_groups"], len(config["block_out_channels"]) - 1
        down, width = nn.ModuleList(), widths[0]
        for level, outer in enumerate(widths):
            blocks = nn.ModuleList()
            for _ in range(layers):
                blocks.append(_vae_block(width, outer, groups))
                width = outer
            parts: dict[str, nn.Module] = {"block": blocks}
            if level < last:
                parts["downsample"] = nn.ModuleDict({"conv": nn.Conv2d(width, width, 3)})
            down.append(nn.ModuleDict(parts))
        ends = {"norm_out": nn.GroupNorm(groups, width), "conv_out": nn.Conv2d(width, 8, 3)}
        self.encoder = nn.ModuleDict(
            {"conv_in": nn.Conv2d(3, widths[0], 3), "down": down, "mid": _vae_middle(width, groups), **ends}
        )
        middle, first = _vae_middle(width, groups), nn.Conv2d(4, width, 3)
        up = []
        for level in reversed(range(len(widths))):
            blocks = nn.ModuleList()
            for _ in range(layers + 1):
                blocks.append(_vae_block(width, widths[level], groups))
                width = widths[level]
            parts = {"block": blocks}
            if level > 0:
                parts["upsample"] = nn.ModuleDict({"conv": nn.Conv2d(width, width, 3)})
            up.insert(0, nn.ModuleDict(parts))
        ends = {"norm_out": nn.GroupNorm(groups, width), "conv_out": nn.Conv2d(width, 3, 3)}
        self.decoder = nn.ModuleDict({"conv_in": first, "mid": middle, "up": nn.ModuleList(up), **ends})
        self.quant_conv = nn.Conv2d(8, 8, 1)
        self.post_quant_conv = nn.Conv2d(4, 4, 1)


def config_folder(m: str, folder: Path) -> Path:
    """A folder of configurations for a replica: the fixture's, for m18 with SD 2's linear projections."""
    without_weights = shutil.ignore_patterns("*.bin", "*.safetensors")
    shutil.copytree(FIXTURES / f"alt-diffusion-{m}-tiny", folder, ignore=without_weights)
    if m == "m18":
        path = folder / "unet" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "use_linear_projection": True}))
    scorer = FIXTURES / f"alt-clip-{m}-tiny"
    shutil.copytree(scorer, folder / "scorer", ignore=without_weights)
    return folder


def text_encoder_tensors(m: str) -> dict[str, Tensor]:
    folder = FIXTURES / f"alt-diffusion-{m}-tiny" / "text_encoder"
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def altclip_tensors(m: str) -> dict[str, Tensor]:
    return torch.load(FIXTURES / f"alt-clip-{m}-tiny" / "pytorch_model.bin", weights_only=True)


def ldm_tensors(m: str, configs: Path, flagai: bool = False, ema: bool = False) -> dict[str, Tensor]:
    """All tensors of a single file, with what else such files carry."""
    torch.manual_seed(0)
    unet = LDMUNet(json.loads((configs / "unet" / "config.json").read_text()))
    vae = LDMAutoencoder(json.loads((configs / "vae" / "config.json").read_text()))
    with torch.no_grad():
        for parameter in [*unet.parameters(), *vae.parameters()]:
            parameter.add_(0.02 * torch.randn_like(parameter))
    tensors = {f"model.diffusion_model.{name}": value for name, value in unet.state_dict().items()}
    if ema:
        for name, value in unet.state_dict().items():
            tensors[f"model_ema.diffusion_model{name.replace('.', '')}"] = value + 0.01
        tensors["model_ema.decay"] = torch.tensor(0.9999)
        tensors["model_ema.num_updates"] = torch.tensor(270_000)
    tensors |= {f"first_stage_model.{name}": value for name, value in vae.state_dict().items()}
    tensors["betas"] = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    tensors["alphas_cumprod"] = (1 - tensors["betas"]).cumprod(0)
    tensors["logvar"] = torch.zeros(1000)
    clip = altclip_tensors(m)
    tower = {name.removeprefix("text_model."): v for name, v in clip.items() if name.startswith("text_model.")}
    tower |= text_encoder_tensors(m)  # m18's second projection, too
    width = tower["transformation.weight"].shape[1]
    tower["roberta.pooler.dense.weight"], tower["roberta.pooler.dense.bias"] = torch.eye(width), torch.zeros(width)
    tower["roberta.embeddings.position_ids"] = torch.arange(514)[None]
    if flagai:
        head = {name: value for name, value in clip.items() if not name.startswith("text_model.")}
        head["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
        tensors |= {f"cond_stage_model.text_model.{name}": value for name, value in tower.items()}
        tensors |= {f"cond_stage_model.{name}": value for name, value in head.items()}
    else:
        tensors |= {f"cond_stage_model.{name}": value for name, value in tower.items()}
    return {name: value.detach().clone() for name, value in tensors.items()}


def write(tensors: dict[str, Tensor], path: Path, dtype: torch.dtype | None = None) -> Path:
    """Writes a single file: .ckpt as PyTorch Lightning does, .safetensors as the WebUIs do."""
    if dtype is not None:
        tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save({"state_dict": tensors, "global_step": 270_000, "epoch": 3}, path)
    return path
