"""The emoji world as tensors: every training picture, and captions by meaning and language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import colours, concepts, is_held_out
from altdiffusion_clip.emoji.renders import TRAIN_PLACEMENTS, render

NO_COLOUR = len(colours())
"""Stands for the colour of a caption that names none."""

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
"""From sentences to padded ids and mask, both int64 (N, length)."""


def all_captions(languages: Sequence[str]) -> list[str]:
    """Every sentence that training may say in some languages."""
    return [
        sentence
        for language in languages
        for concept in concepts()
        for colour in (None, *colours())
        if colour is None or not is_held_out(concept, colour)
        for sentence in captions(concept, colour, language)
    ]


@dataclass(frozen=True)
class Pictures:
    """Pictures and what they show.

    Attributes:
        pixels: uint8 (N, 3, side, side).
        concept: int64 (N,), index into `concepts()`.
        colour: int64 (N,), index into `colours()`.
    """

    pixels: Tensor
    concept: Tensor
    colour: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws positions with replacement, int64 (count,)."""
        return torch.randint(len(self), (count,), generator=generator)

    def signed(self, positions: Tensor) -> Tensor:
        """Pictures as the VAE takes them: float (n, 3, side, side) in [-1, 1]."""
        return self.pixels[positions].float().div_(127.5).sub_(1)


def training_pictures() -> Pictures:
    """Renders every concept on every background it is trained with, at every training placement."""
    examples = [
        (concept, k, placement)
        for concept in concepts()
        for k, colour in enumerate(colours())
        if not is_held_out(concept, colour)
        for placement in TRAIN_PLACEMENTS
    ]
    pixels = torch.stack(
        [
            torch.from_numpy(np.asarray(render(concept, colours()[k], placement))).permute(2, 0, 1)
            for concept, k, placement in tqdm(examples, desc="rendering", mininterval=5.0)
        ]
    )
    return Pictures(
        pixels,
        torch.tensor([concept.index for concept, _, _ in examples]),
        torch.tensor([k for _, k, _ in examples]),
    )


class CaptionBank:
    """All captions in some languages, tokenised once, drawn by meaning.

    Args:
        languages: codes, a subset of `LANGUAGES`.
        tokenize: of the model that will read them.

    Held-out concept-colour pairs are never said, in text-only training either, or they would not be unseen.
    """

    def __init__(self, languages: Sequence[str], tokenize: Tokenize) -> None:
        self.texts: list[str] = []
        self.english: list[str] = []  # of each text, the sentence it is a translation of
        self._rows: dict[tuple[int, int, int], list[int]] = {}
        for concept in concepts():
            for k in range(NO_COLOUR + 1):
                if k != NO_COLOUR and is_held_out(concept, colours()[k]):
                    continue
                for number, language in enumerate(languages):
                    colour = None if k == NO_COLOUR else colours()[k]
                    said = captions(concept, colour, language)
                    english = captions(concept, colour, "en")
                    self.english += [english[i % len(english)] for i in range(len(said))]
                    self._rows[concept.index, k, number] = list(range(len(self.texts), len(self.texts) + len(said)))
                    self.texts += said
        self.languages = tuple(languages)
        self.ids, self.mask = tokenize(self.texts)
        self._meanings = torch.tensor([(concept, k) for concept, k, number in self._rows if number == 0])

    def draw(self, concept: Tensor, colour: Tensor, language: Tensor, generator: torch.Generator) -> Tensor:
        """Draws one way to say each meaning: rows of `ids`, int64 (n,)."""
        picks = torch.rand(len(concept), generator=generator).tolist()
        rows = []
        for key, pick in zip(
            zip(concept.tolist(), colour.tolist(), language.tolist(), strict=True), picks, strict=True
        ):
            choices = self._rows[key]
            rows.append(choices[int(pick * len(choices))])
        return torch.tensor(rows)

    def draw_meanings(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws concepts and colours (or none) that may be said: two int64 (count,)."""
        drawn = self._meanings[torch.randint(len(self._meanings), (count,), generator=generator)]
        return drawn[:, 0], drop_colours(drawn[:, 1], 0.25, generator)

    def similar_lengths(self, rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Chooses `count` of some rows that are of nearly one length, so that little of a batch is padding.

        Returns:
            Places in `rows`, int64 (count,).
        """
        by_length = self.mask[rows].sum(1).argsort()
        start = int(torch.randint(len(rows) - count + 1, (), generator=generator))
        return by_length[start : start + count]

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask of some rows, cut to the longest of them."""
        mask = self.mask[rows]
        length = int(mask.sum(1).max())
        return self.ids[rows, :length], mask[:, :length]


def drop_colours(colour: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replaces a share of the colours by `NO_COLOUR`, so that captions name the concept alone too."""
    return torch.where(torch.rand(colour.shape, generator=generator) < share, NO_COLOUR, colour)


def same_meaning(text_concept: Tensor, text_colour: Tensor, image_concept: Tensor, image_colour: Tensor) -> Tensor:
    """Which captions are true of which pictures: bool (texts, images)."""
    concept = text_concept[:, None] == image_concept[None, :]
    colour = (text_colour[:, None] == image_colour[None, :]) | (text_colour[:, None] == NO_COLOUR)
    return concept & colour
