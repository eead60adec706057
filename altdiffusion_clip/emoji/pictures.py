"""Captioned pictures of scenes for training, drawn and written when they are needed, never stored."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.emoji.captions import Claim, as_typed, claim_of, say
from altdiffusion_clip.emoji.concepts import concepts, grounds
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import COUNTED, Scene, arrangements, draw_scene
from altdiffusion_clip.prompts.windows import cut_to_window

_SEED_BITS = 20
_LANGUAGE_BITS = 5


class ScenePictures:
    """Renders of scenes with captions in some languages: a `Captioned` for every stage.

    The number of a text encodes its picture, its language and the seed of its wording.

    Args:
        scenes: the contents of the pictures, in groups of `group` similar scenes (see `with_hard_negatives`).
        folder: for what the stages compute once from the pictures.
        tokenizer: of the captions; None for pictures only.
        languages: of the captions.
        weights: of some languages; 1 for the others.
        group: number of scenes that are always drawn together.
    """

    side = RESOLUTION
    is_shared = False

    def __init__(
        self,
        scenes: Sequence[Scene],
        folder: Path = Path(),
        tokenizer: PreTrainedTokenizerBase | None = None,
        languages: Sequence[str] = ("en",),
        weights: dict[str, float] | None = None,
        group: int = 1,
    ) -> None:
        self.scenes, self.folder, self.languages = scenes, folder, languages
        self._tokenizer, self._group = tokenizer, group
        self._weights = torch.tensor([(weights or {}).get(code, 1.0) for code in languages])

    def __len__(self) -> int:
        return len(self.scenes)

    # ---------------------------------------------------------------- pictures

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Renders some pictures: uint8 (pictures, 3, side, side)."""
        drawn = np.stack([np.asarray(self.scenes[number].render()) for number in pictures.tolist()])
        return torch.from_numpy(drawn).permute(0, 3, 1, 2)

    # ---------------------------------------------------------------- captions

    @property
    def tokens(self) -> "ScenePictures":
        """Rows of token ids. `tokens[text]` is computed on demand, because there are endless texts."""
        return self

    def __getitem__(self, text: int) -> np.ndarray:
        return np.array(self._ids([text])[0])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws random pictures with one caption each: numbers of pictures and of texts, both int64 (count,)."""
        first = self._group * torch.randint(
            len(self.scenes) // self._group, (-(-count // self._group),), generator=generator
        )
        pictures = (first[:, None] + torch.arange(self._group)).flatten()[:count]
        language = torch.multinomial(self._weights, count, replacement=True, generator=generator)
        seed = torch.randint(1 << _SEED_BITS, (count,), generator=generator)
        return pictures, (((pictures << _LANGUAGE_BITS) | language) << _SEED_BITS) | seed

    def draw_similar(self, count: int, pool: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The same as `draw`: all captions are short, and groups stay together."""
        del pool
        return self.draw(count, generator)

    def caption(self, text: int) -> str:
        """The caption with a number."""
        claim, language, words = self._said(text)
        return as_typed(say(claim, language, words), language, words)

    def tokenised(self, texts: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some texts, int64 (texts, longest)."""
        rows = self._ids(texts.tolist())
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [pad_token_id] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])

    def positives(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Which texts are true of which pictures: bool (texts, pictures)."""
        shown = [self.scenes[number] for number in pictures.tolist()]
        # A claim about other things is false, so few pictures remain to be checked.
        places: dict[frozenset[int], list[int]] = {}
        for place, scene in enumerate(shown):
            places.setdefault(frozenset(thing.index for thing in scene.things), []).append(place)
        true = torch.zeros(len(texts), len(shown), dtype=torch.bool)
        for row, text in enumerate(texts.tolist()):
            claim, _, _ = self._said(text)
            for place in places.get(frozenset(thing.index for thing in claim.things), ()):
                true[row, place] = claim.is_true_of(shown[place])
        return true

    def _said(self, text: int) -> tuple[Claim, str, random.Random]:
        words = random.Random(text)
        place, language = divmod(text >> _SEED_BITS, 1 << _LANGUAGE_BITS)
        return claim_of(self.scenes[place], words), self.languages[language], words

    def _ids(self, texts: Sequence[int]) -> list[list[int]]:
        if self._tokenizer is None:
            raise ValueError("these are pictures alone; give the tokenizer of their captions")
        rows = self._tokenizer([self.caption(text) for text in texts], verbose=False).input_ids
        return [cut_to_window(row) for row in rows]


def with_hard_negatives(scenes: Sequence[Scene], seed: int) -> list[Scene]:
    """Adds to each scene three that differ in one respect: the ground, the position or count, or the thing.

    Without them, a CLIP learns to tell a cat from a dog, but not two cats from three, or left from right.

    Args:
        scenes: the original scenes. None of the new ones is held out either.
        seed: of the changes.

    Returns:
        Four scenes for each, one after another.
    """
    generator = random.Random(seed)
    beside = []
    for scene in scenes:
        beside += [
            scene,
            _varied(scene, generator, _other_ground),
            _varied(scene, generator, _other_layout),
            _varied(scene, generator, _other_thing),
        ]
    return beside


def _varied(scene: Scene, generator: random.Random, change: Callable[[Scene, random.Random], Scene]) -> Scene:
    for _ in range(100):
        other = change(scene, generator)
        number = len(arrangements(other.kind, other.ground.rgb is None))
        other = replace(other, arrangement=generator.randrange(number))
        if not other.is_held_out:
            return other
    return scene


def _other_ground(scene: Scene, generator: random.Random) -> Scene:
    return replace(scene, ground=generator.choice([ground for ground in grounds() if ground != scene.ground]))


def _other_layout(scene: Scene, generator: random.Random) -> Scene:
    if len(scene.things) == 2:
        return replace(
            scene,
            things=generator.choice((scene.things, scene.things[::-1], scene.things[::-1])),
            kind=generator.choice(("beside", "above")),
        )
    if not scene.things[0].is_counted:
        return _other_ground(scene, generator)
    return replace(scene, kind=generator.choice([kind for kind in ("one", *COUNTED) if kind != scene.kind]))


def _other_thing(scene: Scene, generator: random.Random) -> Scene:
    other = draw_scene(scene.kind, generator, concepts())
    if len(scene.things) == 2:
        kept = scene.things[0] if scene.things[0] != other.things[1] else other.things[0]
        return replace(scene, things=(kept, other.things[1]))
    return replace(scene, things=other.things)
