"""Measures how far a drawn picture is from the nearest true render of its prompt, in dB.

A classifier soon reaches 100% without looking at eyes or wheels. The peak signal-to-noise ratio to the nearest true
render does not saturate. No drawing can be nearer than the autoencoder's reconstruction of the render, so that is
measured as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import Scene


@dataclass(frozen=True)
class Distance:
    """The distance of one picture.

    Attributes:
        psnr: of the picture against the nearest true render, in dB.
        nearest: that render's scene.
        autoencoder: of the autoencoder's reconstruction against that render, in dB.
    """

    psnr: float
    nearest: Scene
    autoencoder: float

    @property
    def gap(self) -> float:
        """How much worse the picture is than the autoencoder alone, in dB."""
        return self.autoencoder - self.psnr


def distance_to_renders(image: Image.Image, scene: Scene, vae: AutoencoderKL) -> Distance:
    """Measures one picture.

    Args:
        image: drawn from a prompt that states everything about a scene except its arrangement.
        scene: in any arrangement.
        vae: of the model that drew it.

    Example:
        >>> from altdiffusion_clip.emoji.architectures import new_vae
        >>> from altdiffusion_clip.emoji.concepts import find_concept, find_ground
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
    """The median and the worst tenth of some pictures, and the autoencoder's, in dB.

    Args:
        distances: at least one.

    Returns:
        Medians `psnr`, `autoencoder` and `gap`; and `gap_worst_tenth`, which nine in ten pictures do not exceed.
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
