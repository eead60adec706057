"""How far a drawn picture is from the nearest picture that its prompt is true of, in dB.

A classifier soon says 100% and sees neither eyes nor wheels. The peak signal-to-noise ratio to the nearest of all true
renders does. No drawing can be nearer than the autoencoder brings the render itself, so that is measured beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from altdiffusion_clip.emoji_m18.renders import RESOLUTION
from altdiffusion_clip.emoji_m18.scenes import Scene


@dataclass(frozen=True)
class Distance:
    """Of one picture.

    Attributes:
        psnr: to the nearest true render, in dB.
        nearest: that render's scene.
        autoencoder: what the autoencoder alone makes of that render, in dB.
    """

    psnr: float
    nearest: Scene
    autoencoder: float

    @property
    def gap(self) -> float:
        """How many dB the picture is further away than the autoencoder alone."""
        return self.autoencoder - self.psnr


def distance_to_renders(image: Image.Image, scene: Scene, vae: AutoencoderKL) -> Distance:
    """Measures one picture.

    Args:
        image: drawn from a prompt that says all of a scene but its arrangement.
        scene: in any arrangement.
        vae: of the model that drew.

    Example:
        >>> from altdiffusion_clip.emoji_m18.architectures import new_vae
        >>> from altdiffusion_clip.emoji_m18.concepts import find_concept, find_ground
        >>> scene = Scene("one", (find_concept("cat"),), find_ground("meadow"), arrangement=1)
        >>> distance_to_renders(scene.render(), scene, new_vae()).nearest == scene
        True
    """
    variants = list(scene.variants())
    renders = torch.stack([_signed(variant.render()) for variant in variants])
    picture = _signed(image.convert("RGB").resize((RESOLUTION, RESOLUTION), Image.Resampling.LANCZOS))
    errors = (renders - picture).square().flatten(1).mean(1)
    best = int(errors.argmin())
    return Distance(_psnr(errors[best]), variants[best], _through(vae, renders[best]))


def summary(distances: Sequence[Distance]) -> dict[str, float]:
    """The median picture and the worst tenth, beside the autoencoder's own, in dB.

    Args:
        distances: of some pictures, not empty.

    Returns:
        `psnr`, `autoencoder` and `gap`, medians; `gap_worst_tenth`, the gap that nine in ten pictures stay below.
    """
    gaps = np.array([distance.gap for distance in distances])
    return {
        "psnr": float(np.median([distance.psnr for distance in distances])),
        "autoencoder": float(np.median([distance.autoencoder for distance in distances])),
        "gap": float(np.median(gaps)),
        "gap_worst_tenth": float(np.quantile(gaps, 0.9)),
    }


def _signed(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def _psnr(mean_square: Tensor) -> float:
    return float(10 * torch.log10(4 / mean_square.clamp(min=1e-10)))


@torch.no_grad()
def _through(vae: AutoencoderKL, render: Tensor) -> float:
    pixels = render[None].to(vae.device, vae.dtype)
    back = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1).float().cpu()
    return _psnr((back[0] - render).square().mean())
