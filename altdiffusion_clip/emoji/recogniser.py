"""A classifier that says what a drawn picture shows. It was trained only on renders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from altdiffusion_clip.emoji.concepts import Colour, Concept, colours, concepts
from altdiffusion_clip.emoji.held_out import HeldOutPicture
from altdiffusion_clip.files import atomic_path
from altdiffusion_clip.images import load_image

WEIGHTS = Path(__file__).parent / "recogniser" / "model.safetensors"


class Recogniser(nn.Module):
    """A convolutional classifier of concepts that are alone in a picture or in one half of it.

    Example:
        >>> from altdiffusion_clip.emoji.held_out import held_out_pictures
        >>> picture = held_out_pictures()[0]
        >>> Recogniser.load().concepts_of([Image.open(picture.path)])[0].names["en"]
        'cat'
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, 32), (32, 64), (64, 96), (96, 128)):
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(128 * 16, len(concepts()))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of the concepts, float (batch, concepts), of pictures in [-1, 1], float (batch, 3, 64, 64)."""
        return self.head(self.features(pixels).flatten(1))

    @torch.inference_mode()
    def concepts_of(self, images: Sequence[Image.Image]) -> list[Concept]:
        """The concept that each picture shows."""
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB").resize((64, 64)))) for image in images])
        logits = self(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return [concepts()[i] for i in logits.argmax(1).tolist()]

    @torch.inference_mode()
    def scenes_of(self, images: Sequence[Image.Image]) -> list[tuple[Concept, Concept]]:
        """The concepts in the left and the right half of each picture."""
        pixels = torch.stack([torch.from_numpy(np.array(image.convert("RGB").resize((64, 64)))) for image in images])
        left, right = halves(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        guesses = (self(half).argmax(1).tolist() for half in (left, right))
        return [(concepts()[i], concepts()[j]) for i, j in zip(*guesses, strict=True)]

    def accuracy(self, pictures: Sequence[HeldOutPicture]) -> float:
        """The share of renders that are recognised, in percent."""
        guesses = self.concepts_of([load_image(picture.path) for picture in pictures])
        return 100 * sum(g == p.concept for g, p in zip(guesses, pictures, strict=True)) / len(pictures)

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Self:
        """Loads the classifier in the package."""
        recogniser = cls()
        recogniser.load_state_dict(load_file(path))
        return recogniser.eval()

    def save(self, path: Path = WEIGHTS) -> None:
        """Writes the weights as safetensors."""
        with atomic_path(path) as temporary:
            save_file(self.state_dict(), temporary)


def background_of(image: Image.Image) -> Colour:
    """The named colour nearest to the median of the picture's corners."""
    pixels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float32)
    corners = np.concatenate([pixels[y : y + 6, x : x + 6].reshape(-1, 3) for y in (0, 58) for x in (0, 58)])
    median = np.median(corners, axis=0)
    return min(colours(), key=lambda colour: float(np.square(median - np.array(colour.rgb)).sum()))


def halves(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The left and right halves of pictures, padded to squares with their edges: float (batch, 3, side, side)."""
    middle = pixels.shape[-1] // 2
    padding = (middle // 2, middle - middle // 2, 0, 0)
    left, right = (F.pad(half, padding, mode="replicate") for half in (pixels[..., :middle], pixels[..., middle:]))
    return left, right


def blurred(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Adds the faults of a decoder to renders: blur, noise, shifted colours.

    Without them, the classifier would react to an autoencoder's blur instead of the contents.
    """
    count = len(pixels)
    keep = torch.rand(count, 1, 1, 1, generator=generator)
    soft = F.interpolate(F.avg_pool2d(pixels, 2), scale_factor=2.0, mode="bilinear")
    noise = torch.randn(pixels.shape, generator=generator) * 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    shift = torch.randn(count, 3, 1, 1, generator=generator) * 0.05
    return (keep * pixels + (1 - keep) * soft + noise + shift).clamp(-1, 1)
