from pathlib import Path

import torch
from diffusers import AutoencoderKL

from altdiffusion_clip.training.loop import LoopConfig
from altdiffusion_clip.training.vae import psnr, reconstruction_loss, train_vae


def blocks(generator: torch.Generator) -> torch.Tensor:
    """Pictures of 2x2 blocks of random colours."""
    return (2 * torch.rand(4, 3, 2, 2, generator=generator) - 1).repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_it_learns_and_scales_its_latents(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    pictures = blocks(torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = psnr(vae, pictures)
    config = LoopConfig(steps=250, learning_rate=3e-3, warmup_steps=10)
    trained = train_vae(vae, blocks, config, tmp_path / "vae.pt")
    assert psnr(trained, pictures) > before + 4
    with torch.no_grad():
        latents = torch.cat(
            [trained.encode(blocks(torch.Generator().manual_seed(i))).latent_dist.mode() for i in range(100, 132)]
        )
    assert 0.7 < (latents * trained.config.scaling_factor).std() < 1.4


def test_the_loss_is_zero_for_the_same_picture_and_grows() -> None:
    picture = torch.zeros(1, 3, 4, 4)
    assert reconstruction_loss(picture, picture) == 0
    assert reconstruction_loss(picture + 0.5, picture) == 0.5 + 0.25
