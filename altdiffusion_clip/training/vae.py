"""The autoencoder: pictures to latents and back (Rombach et al., arXiv 2112.10752), without the adversarial part."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from altdiffusion_clip.training.loop import LoopConfig, device_of, optimise

KL_WEIGHT = 1e-6


def reconstruction_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """L1 + L2 between pictures in [-1, 1], a scalar: L2 for PSNR, L1 for edges."""
    difference = reconstruction - pixels
    return difference.abs().mean() + difference.square().mean()


def train_vae(
    vae: AutoencoderKL, sample: Callable[[torch.Generator], Tensor], config: LoopConfig, checkpoint: Path
) -> AutoencoderKL:
    """Trains an autoencoder, then sets its `scaling_factor` so that latents have unit variance.

    Args:
        vae: trained in place.
        sample: gives pictures, float (batch, 3, height, width) in [-1, 1].
        config: of the loop.
        checkpoint: file to save to and to resume from.

    Returns:
        The averaged autoencoder if the config has an EMA, else the same.
    """

    def loss_at(generator: torch.Generator) -> Tensor:
        pixels = sample(generator).to(device_of(vae))
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
        latents = posterior.mean + posterior.std * noise
        return reconstruction_loss(vae.decode(latents).sample, pixels) + KL_WEIGHT * posterior.kl().mean()

    trained = optimise(vae, loss_at, config, checkpoint, "VAE")
    with torch.no_grad():
        pictures = torch.cat([sample(torch.Generator().manual_seed(i)) for i in range(32)])
        latents = trained.encode(pictures.to(device_of(vae))).latent_dist.mode()
    trained.register_to_config(scaling_factor=1 / latents.std().item())
    return trained


@torch.no_grad()
def psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Peak signal-to-noise ratio of the reconstruction of pictures in [-1, 1], in dB."""
    pixels = pixels.to(device_of(vae))
    reconstruction = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (reconstruction - pixels).square().mean()))
