"""LDM's names, against latent-diffusion's own structure and diffusers' converter."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from altdiffusion_clip.checkpoints import ldm
from altdiffusion_clip.checkpoints.architectures import CONFIGS
from altdiffusion_clip.checkpoints.layouts import ldm_name, read_json
from tests.checkpoints import replicas

FULL_SIZE = ("m2-m9", "m18")
PARTS = {
    "unet": (UNet2DConditionModel, replicas.LDMUNet, convert_ldm_unet_checkpoint, ldm.UNET),
    "vae": (AutoencoderKL, replicas.LDMAutoencoder, convert_ldm_vae_checkpoint, ldm.VAE),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("size", FULL_SIZE)
def test_full_size_names_and_shapes(size: str, part: str) -> None:
    diffusers_class, ldm_class, convert, prefix = PARTS[part]
    config = read_json(CONFIGS / size / part / "config.json")
    with torch.device("meta"):
        ours = diffusers_class.from_config(config).state_dict()
        original = ldm_class(config).state_dict()
    rename = ldm_name(part, config)
    renamed = {rename(name): tensor for name, tensor in ours.items()}
    assert renamed.keys() == original.keys()
    for name, tensor in renamed.items():
        assert tensor.numel() == original[name].numel(), name
        if not ldm.is_vae_attention_matrix(name):
            assert tensor.shape == original[name].shape, name

    back = convert({prefix + name: tensor for name, tensor in original.items()}, config)
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in ours.items()}
    for name in ours:
        assert back[name].numel() == original[rename(name)].numel(), name


@pytest.mark.parametrize(
    "name", ["class_embedding.weight", "down_blocks.0.motion_modules.0.x", "add_embedding.linear_1"]
)
def test_what_latent_diffusion_does_not_have(name: str) -> None:
    with pytest.raises(KeyError):
        ldm.unet_name(name, 2, [1, 2, 3])


def test_autoencoders_from_before_0_15_have_todays_names() -> None:
    old = {
        f"decoder.mid_block.attentions.0.{name}.weight" for name in ("query", "key", "value", "proj_attn", "group_norm")
    }
    new = {
        f"decoder.mid_block.attentions.0.{name}.weight" for name in ("to_q", "to_k", "to_v", "to_out.0", "group_norm")
    }
    assert {ldm.todays_vae_name(name) for name in old} == new
    assert {ldm.todays_vae_name(name) for name in new} == new
