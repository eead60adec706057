"""Trains the classifier that says what drawn pictures show, on renders only."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from altdiffusion_clip.emoji.concepts import Concept
from altdiffusion_clip.emoji.recogniser import Recogniser, blurred, halves
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.loop import Tensors, optimise


def train_recogniser(pictures: CaptionedPictures, shown: Sequence[Sequence[Concept]], config: RunConfig) -> Recogniser:
    """Trains a classifier of the concepts.

    The renders are shifted by up to two pixels, so it has not seen the pairs and sizes of the held-out renders, but
    some of their positions.

    Args:
        pictures: renders.
        shown: the contents of each: one concept, or the left and the right one.
        config: of the run.
    """
    torch.manual_seed(0)
    source = _Renders(pictures, shown, config.batch_size)
    return optimise(_RecogniserLoss(Recogniser()), source, config, "recogniser").recogniser.cpu()


class _RecogniserLoss(nn.Module):
    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self.recogniser = recogniser

    def forward(self, pixels: Tensor, concept: Tensor) -> Tensor:
        return F.cross_entropy(self.recogniser(pixels), concept)


class _Renders:
    """Shifted and blurred renders with their concepts; for a scene, one of its halves."""

    def __init__(self, pictures: CaptionedPictures, shown: Sequence[Sequence[Concept]], count: int) -> None:
        self._pictures, self._count = pictures, count
        self._concepts = torch.tensor([[places[0].index, places[-1].index] for places in shown])
        self._is_scene = torch.tensor([len(places) == 2 for places in shown])

    def draw(self, generator: torch.Generator) -> Tensors:
        count = self._count
        return {
            "pictures": torch.randint(len(self._pictures), (count,), generator=generator),
            "side": torch.randint(2, (count,), generator=generator),
            "seed": torch.randint(2**31, (count,), generator=generator),
        }

    def load(self, drawn: Tensors) -> Tensors:
        generator = torch.Generator().manual_seed(int(drawn["seed"][0]))
        shown, side = drawn["pictures"], drawn["side"]
        pixels = signed(self._pictures.pixels_of(shown))
        left, right = halves(pixels)
        half = torch.where(side[:, None, None, None] == 0, left, right)
        pixels = torch.where(self._is_scene[shown][:, None, None, None], half, pixels)
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        pixels = blurred(torch.roll(pixels, shift, (2, 3)), generator)
        return {"pixels": pixels, "concept": self._concepts[shown].gather(1, side[:, None])[:, 0]}
