from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import AutoTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.vae import psnr, reconstruction_loss, train_vae
from tests.training.worlds import write_pictures


@pytest.fixture
def pictures(tmp_path: Path) -> CaptionedPictures:
    tokenizer = AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")
    return CaptionedPictures.prepare([write_pictures(tmp_path / "pictures")], 32, tokenizer, tmp_path / "data")


def new_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def test_it_learns_and_scales_its_latents(pictures: CaptionedPictures, tmp_path: Path) -> None:
    vae, some = new_vae(), signed(pictures.pixels_of(torch.arange(8)))
    before = psnr(vae, some)
    config = RunConfig(output=tmp_path / "run", steps=150, batch_size=4, learning_rate=3e-3, warmup_steps=10)
    train_vae(vae, pictures, config, crop=16)
    assert psnr(vae, some) > before + 4
    with torch.no_grad():
        latents = vae.encode(signed(pictures.pixels_of(torch.arange(len(pictures))))).latent_dist.mode()
    assert 0.7 < (latents * vae.config.scaling_factor).std() < 1.4


def test_the_loss_is_zero_for_the_same_picture_and_grows() -> None:
    picture = torch.zeros(1, 3, 4, 4)
    assert reconstruction_loss(picture, picture) == 0
    assert reconstruction_loss(picture + 0.5, picture) == 0.5 + 0.25
