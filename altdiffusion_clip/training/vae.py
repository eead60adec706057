"""The autoencoder: pictures to latents and back (Rombach et al., arXiv 2112.10752), without the adversarial part."""

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
    """Square pictures, as an autoencoder takes them."""

    @property
    def side(self) -> int:
        """Of each picture, in pixels."""

    def __len__(self) -> int: ...

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Some pictures, uint8 (pictures, 3, side, side)."""


def reconstruction_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """L1 + L2 between pictures in [-1, 1], a scalar: L2 for PSNR, L1 for edges."""
    difference = reconstruction - pixels
    return difference.abs().mean() + difference.square().mean()


class _Reconstruction(nn.Module):
    def __init__(self, vae: AutoencoderKL, latent_noise: float) -> None:
        super().__init__()
        self.vae, self.latent_noise = vae, latent_noise

    def forward(self, pixels: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        pixels = signed(pixels)
        posterior = self.vae.encode(pixels).latent_dist
        # In quadrature: noise of the posterior, and noise as a denoiser's errors would be.
        errors = self.latent_noise * level[:, None, None, None] * posterior.mean.detach().std()
        latents = posterior.mean + (posterior.var + errors.square()).sqrt() * noise
        return reconstruction_loss(self.vae.decode(latents).sample, pixels) + KL_WEIGHT * posterior.kl().mean()


class _Crops:
    """Squares of the pictures, whole if `crop` is their side."""

    def __init__(self, pictures: Pictures, vae: AutoencoderKL, crop: int, count: int) -> None:
        self._pictures, self._crop, self._count = pictures, crop, count
        self._latent_channels = vae.config.latent_channels
        self._latent_side = crop // 2 ** (len(vae.config.block_out_channels) - 1)

    def draw(self, generator: torch.Generator) -> Tensors:
        most = self._pictures.side - self._crop + 1
        side, count = self._latent_side, self._count
        # One place for the whole batch, so that cutting is a slice.
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
    """Trains an autoencoder, then sets its `scaling_factor` so that latents have unit variance.

    Args:
        vae: trained in place.
        pictures: to put back together.
        config: of the loop.
        crop: side of the squares that are cut out of the pictures, in pixels; whole pictures if not given. Many
            small steps teach an autoencoder more than few large ones.
        latent_noise: the most noise that is added to latents, in their standard deviations; each picture draws its
            own share of it. The decoder learns to forgive a denoiser's small errors (arXiv 2510.11690, section 3).
        accelerator: of the run.
        folder: of the run; `config.output` if not given.

    Returns:
        The autoencoder, averaged if the config has an EMA.
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
    """Peak signal-to-noise ratio of the reconstruction of pictures in [-1, 1], in dB."""
    pixels = pixels.to(vae.device)
    reconstruction = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / (reconstruction - pixels).square().mean()))
