"""Drawing many pictures of a prompt and keeping those that fit it best."""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from altdiffusion_clip.drawing import pictures_of
from altdiffusion_clip.pipelines.alt_diffusion.halving import Halving
from altdiffusion_clip.prompt_weights import parse_weights
from altdiffusion_clip.scoring import AltCLIPScorer

logger = logging.getLogger(__name__)
STRATEGIES = ("full", "halving")
Entry = tuple[float, int, Image.Image]
"""Cosine, negated seed (of equals the first is better) and picture."""


@dataclass(frozen=True)
class BestOf:
    """The pictures that were kept, best first.

    Attributes:
        images: the pictures.
        seeds: of each.
        cosine: of each with the prompt, in [-1, 1].
        all_cosines: of every picture that was drawn to its end, by its seed.
    """

    images: list[Image.Image]
    seeds: list[int]
    cosine: list[float]
    all_cosines: dict[int, float]


class AltDiffusionBestOfMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`best_of` for every AltDiffusion pipeline; put it before the diffusers class."""

    @torch.no_grad()
    def best_of(
        self,
        prompt: str,
        n: int = 8,
        keep: int = 1,
        scorer: AltCLIPScorer | None = None,
        seed: int = 0,
        batch_size: int = 1,
        strategy: str = "full",
        **arguments: Any,
    ) -> BestOf:
        """Draws `n` pictures of a prompt and keeps those that a scorer finds to fit it best.

        Each picture's noise comes from a CPU generator of its own seed, so what is kept does not depend on the batch
        size. No more than `keep` pictures and one batch are in memory.

        Args:
            prompt: what to draw, and what to score by.
            n: how many to draw, with the seeds `seed` to `seed + n - 1`.
            keep: how many to keep.
            scorer: the judge; by default the pipeline's own head, as `AltCLIPScorer.from_pipeline` finds it.
            seed: of the first picture.
            batch_size: pictures drawn at a time.
            strategy: "full" draws every picture to its end. "halving" begins all of them in one batch and gives up the
                worse half at set points of the schedule, by what the pictures would become (see `halving`); for text to
                image and image to image.
            **arguments: of the pipeline's call, but `generator`, `num_images_per_prompt` and `output_type`.

        Raises:
            ValueError: `n`, `keep` or `batch_size` is less than one, there are more to keep than to draw, or the
                strategy is not known, or not for this pipeline or scheduler.

        Example:
            >>> from altdiffusion_clip import AltDiffusionPipeline
            >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m9")
            >>> pipe.set_progress_bar_config(disable=True)
            >>> best = pipe.best_of("蓝色背景上的猫", n=3, keep=2, num_inference_steps=2, guidance_scale=3.0)
            >>> len(best.images), best.cosine[0] >= best.cosine[1]
            (2, True)
        """
        if not 1 <= keep <= n:
            raise ValueError(f"cannot keep {keep} of {n} pictures; give keep between 1 and n")
        if batch_size < 1:
            raise ValueError(f"a batch of {batch_size} pictures; give batch_size 1 or more")
        if strategy not in STRATEGIES:
            raise ValueError(f"no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
        scorer = scorer or self._own_scorer()
        wanted = parse_weights(prompt).text
        if strategy == "halving":
            return self._halved(prompt, wanted, list(range(seed, seed + n)), keep, scorer, arguments)
        kept: list[Entry] = []
        cosines: dict[int, float] = {}
        for start in range(seed, seed + n, batch_size):
            seeds = list(range(start, min(start + batch_size, seed + n)))
            drawn = self(
                prompt,
                num_images_per_prompt=len(seeds),
                generator=[torch.Generator().manual_seed(each) for each in seeds],
                output_type="np",
                **arguments,
            )
            for entry in _judged(scorer, wanted, seeds, drawn.images):
                cosines[-entry[1]] = entry[0]
                heapq.heappush(kept, entry)
                if len(kept) > keep:
                    heapq.heappop(kept)
        return _best(kept, cosines)

    def _halved(
        self,
        prompt: str,
        wanted: str,
        seeds: list[int],
        keep: int,
        scorer: AltCLIPScorer,
        arguments: dict[str, Any],
    ) -> BestOf:
        if set(self._callback_tensor_inputs) - set(Halving.inputs):
            raise ValueError(f"halving is for text to image and image to image, not for {type(self).__name__}")
        if "callback_on_step_end" in arguments:
            raise ValueError("halving needs callback_on_step_end for itself; take strategy='full' with one of your own")
        text = scorer.encode_texts(wanted)[0]

        def score(pictures: Tensor) -> Tensor:
            embeds, _ = scorer.encode_images(list(pictures))
            return embeds @ text

        generators = [torch.Generator().manual_seed(each) for each in seeds]
        side = scorer.config.vision_config.image_size
        halving = Halving(self, seeds, generators, score, keep, side)
        with halving.watching():
            drawn = self(
                prompt,
                num_images_per_prompt=len(seeds),
                generator=generators,
                output_type="np",
                callback_on_step_end=halving,
                callback_on_step_end_tensor_inputs=list(Halving.inputs),
                **arguments,
            )
        # No more than `keep` are drawn to the end.
        entries = list(_judged(scorer, wanted, halving.seeds, drawn.images))
        return _best(entries, {-each: cosine for cosine, each, _ in entries})

    def _own_scorer(self) -> AltCLIPScorer:
        """The head beside the pipeline, which is loaded once."""
        scorer: AltCLIPScorer | None = getattr(self, "_scorer_of_text_encoder", None)
        if scorer is None or scorer.text_model is not self.text_encoder:
            scorer = AltCLIPScorer.from_pipeline(self)
            self._scorer_of_text_encoder = scorer
        return scorer


def _judged(scorer: AltCLIPScorer, wanted: str, seeds: list[int], arrays: np.ndarray) -> Iterator[Entry]:
    for seed, image in zip(seeds, pictures_of(arrays), strict=True):
        if image is None:
            logger.warning("the picture of seed %d is not a number and is left out; try float32", seed)
        else:
            yield float(scorer.score(wanted, image).cosine), -seed, image


def _best(entries: list[Entry], cosines: dict[int, float]) -> BestOf:
    best = sorted(entries, key=lambda entry: entry[:2], reverse=True)
    return BestOf(
        [image for _, _, image in best], [-seed for _, seed, _ in best], [cosine for cosine, _, _ in best], cosines
    )
