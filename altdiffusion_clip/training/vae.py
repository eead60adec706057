"""Trains the autoencoder (Rombach et al., arXiv 2112.10752), without an adversarial loss."""

from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from torch import Tensor, nn

from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.loop import Tensors, optimise

KL_WEIGHT = 1e-6


class Pictures(Protocol):
    """Square pictures for an autoencoder."""

    @property
    def side(self) -> int:
        """The side of the pictures, in pixels."""

    def __len__(self) -> int: ...

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Loads some pictures, uint8 (pictures, 3, side, side)."""


def reconstruction_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """L1 + L2 between pictures in [-1, 1], a scalar. L2 is for the PSNR, L1 for edges."""
    difference = reconstruction - pixels
    return difference.abs().mean() + difference.square().mean()


class _Reconstruction(nn.Module):
    def __init__(self, vae: AutoencoderKL, latent_noise: float) -> None:
        super().__init__()
        self.vae, self.latent_noise = vae, latent_noise

    def forward(self, pixels: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        pixels = signed(pixels)
        posterior = self.vae.encode(pixels).latent_dist
        # The posterior's noise and the noise of a denoiser's errors, added in quadrature.
        errors = self.latent_noise * level[:, None, None, None] * posterior.mean.detach().std()
        latents = posterior.mean + (posterior.var + errors.square()).sqrt() * noise
        return reconstruction_loss(self.vae.decode(latents).sample, pixels) + KL_WEIGHT * posterior.kl().mean()


class _Crops:
    """Square crops of the pictures, or whole pictures if `crop` is their side."""

    def __init__(self, pictures: Pictures, vae: AutoencoderKL, crop: int, count: int) -> None:
        self._pictures, self._crop, self._count = pictures, crop, count
        self._latent_channels = vae.config.latent_channels
        self._latent_side = crop // 2 ** (len(vae.config.block_out_channels) - 1)

    def draw(self, generator: torch.Generator) -> Tensors:
        most = self._pictures.side - self._crop + 1
        side, count = self._latent_side, self._count
        # The same position for the whole batch, so that cropping is a slice.
        place = torch.randint(most, (2,), generator=generator).expand(count, 2)
        return {
            "pictures": torch.randint(len(self._pictures), (count,), generator=generator),
            "place": place,
            "noise": torch.randn(count, self._latent_channels, side, side, generator=generator),
            "level": torch.rand(count, generator=generator),
        }

    def load(self, drawn: Tensors) -> Tensors:
        top, left = drawn["place"][0].tolist()
        pixels = self._pictures.pixels_of(drawn["pictures"])[:, :, top : top + self._crop, left : left + self._crop]
        return {"pixels": pixels.contiguous(), "noise": drawn["noise"], "level": drawn["level"]}


def train_vae(
    vae: AutoencoderKL,
    pictures: Pictures,
    config: RunConfig,
    crop: int | None = None,
    latent_noise: float = 0.0,
    accelerator: Accelerator | None = None,
    folder: Path | None = None,
) -> AutoencoderKL:
    """Trains an autoencoder, then sets its `scaling_factor` for unit variance of the latents.

    Args:
        vae: to train, in place.
        pictures: to reconstruct.
        config: of the loop.
        crop: side of square crops, in pixels; by default whole pictures. Many small steps teach an autoencoder more
            than a few large ones.
        latent_noise: the largest noise to add to latents, in standard deviations; each picture gets a random share. The
            decoder learns to tolerate a denoiser's small errors (arXiv 2510.11690, section 3).
        accelerator: of the run.
        folder: of the run; by default `config.output`.

    Returns:
        The autoencoder, with averaged weights if the config has an EMA.
    """
    source = _Crops(pictures, vae, crop or pictures.side, config.batch_size)
    trained: AutoencoderKL = optimise(
        _Reconstruction(vae, latent_noise), source, config, "VAE", accelerator=accelerator, folder=folder
    ).vae
    generator = torch.Generator().manual_seed(config.seed)
    some = torch.randint(len(pictures), (256,), generator=generator)
    with torch.no_grad():
        latents = torch.cat(
            [
                trained.encode(signed(pictures.pixels_of(part).to(trained.device))).latent_dist.mode()
                for part in some.split(16)
            ]
        )
    trained.register_to_config(scaling_factor=1 / latents.std().item())
    return trained


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """The peak signal-to-noise ratio of reconstructed pictures in [-1, 1], in dB."""
    pixels = pixels.to(vae.device)
    reconstruction = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (reconstruction - pixels).square().mean()))
