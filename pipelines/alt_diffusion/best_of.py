"""Draws many pictures of a prompt and keeps those that fit it best."""

import heapq
import inspect
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from altdiffusion_clip.drawing.calls import pictures_of
from altdiffusion_clip.pipelines.alt_diffusion.halving import may_win, plan_drafts
from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.scores import NOT_A_NUMBER
from altdiffusion_clip.scoring import AltCLIPScorer

if TYPE_CHECKING:
    from altdiffusion_clip.judges.encoding import Bench

logger = logging.getLogger(__name__)
STRATEGIES = ("full", "halving")
OURS = ("generator", "num_images_per_prompt", "output_type", "return_dict")
"""Arguments of a pipeline's call that `best_of` sets itself."""


@dataclass(frozen=True)
class Entry:
    """A finished picture.

    Attributes:
        score: by the first judge.
        seed: of its noise.
        image: the picture.
        is_nsfw: the safety checker's verdict; None without a checker. It blacks out such pictures.
        members: the score of each member of the panel, float32 (members,).
    """

    score: float
    seed: int
    image: Image.Image
    is_nsfw: bool | None = None
    members: Tensor = field(default_factory=lambda: torch.empty(0))

    def __lt__(self, other: "Entry") -> bool:
        """Whether it is worse than another. Of equal ones, the later seed is."""
        return (self.score, -self.seed) < (other.score, -other.seed)


@dataclass(frozen=True)
class BestOf:
    """The best pictures, best first.

    Attributes:
        images: the pictures.
        seeds: of the pictures.
        scores: of the pictures with the prompt, by the first judge.
        all_scores: the score of every finished picture, by seed.
        nsfw_content_detected: the safety checker's verdict for each; None if the pipeline has none.
        measure: what the scores are: "cosine", in [-1, 1], or "score", without a unit.
        judges: the scores of each picture by other judges, by name.
    """

    images: list[Image.Image]
    seeds: list[int]
    scores: list[float]
    all_scores: dict[int, float]
    nsfw_content_detected: list[bool] | None = None
    measure: str = "cosine"
    judges: dict[str, list[float]] = field(default_factory=dict)


class AltDiffusionBestOfMixin(StableDiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`best_of` for every AltDiffusion pipeline. It must come before the diffusers class."""

    @torch.no_grad()
    def best_of(
        self,
        prompt: str,
        n: int = 8,
        keep: int = 1,
        judge: Any = None,
        seed: int = 0,
        batch_size: int = 1,
        strategy: str = "full",
        **arguments: Any,
    ) -> BestOf:
        """Draws `n` pictures of a prompt and keeps those that fit it best according to a judge.

        Each picture's noise comes from a CPU generator with its own seed, so the result does not depend on the batch
        size. At most `keep` pictures and one batch are in memory, unless the judge compares pictures, as ensembles with
        z-scores or ranks do. Pictures that are not a number, or whose score is not, are left out with a warning. If the
        pipeline is interrupted (`pipe._interrupt`), only pictures that were finished before count.

        Args:
            prompt: to draw, and to score by.
            n: how many to draw, with the seeds `seed` to `seed + n - 1`.
            keep: how many to keep.
            judge: a scorer, any other judge, its name (see `judges.names.load_judge`), a function of texts and
                pictures, or several of these, of which the first decides. By default the pipeline's own head, as in
                `AltCLIPScorer.from_pipeline`.
            seed: of the first picture.
            batch_size: pictures drawn at a time.
            strategy: "full" draws every picture to the end. "halving" draws short drafts of all, and finishes only
                those that may still win: about half of the work for eight pictures (see `halving`). It needs a
                scheduler that adds no noise while drawing.
            **arguments: of the pipeline's call, except `generator`, `num_images_per_prompt`, `output_type` and
                `return_dict`.

        Raises:
            ValueError: `n`, `keep` or `batch_size` is less than one, `keep` is more than `n`, the strategy is unknown
                or does not suit the judge, or an argument is given that `best_of` sets itself.
            UserError: the judge does not exist.

        Example:
            >>> from altdiffusion_clip import AltDiffusionPipeline
            >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
            >>> pipe.set_progress_bar_config(disable=True)
            >>> best = pipe.best_of("蓝色背景上的猫", n=3, keep=2, num_inference_steps=2)
            >>> len(best.images), best.scores[0] >= best.scores[1]
            (2, True)
        """
        if not 1 <= keep <= n:
            raise ValueError(f"cannot keep {keep} of {n} pictures; give keep between 1 and n")
        if batch_size < 1:
            raise ValueError(f"a batch of {batch_size} pictures; give batch_size 1 or more")
        if strategy not in STRATEGIES:
            raise ValueError(f"no strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
        given = [name for name in OURS if name in arguments]
        if given:
            raise ValueError(f"best_of gives {given[0]} itself; omit it")
        bench = self._bench_of(judge)
        panel = bench.panel
        if strategy == "halving" and not panel.is_by_row:
            raise ValueError("halving compares drafts one by one; take a judge that does not compare pictures")
        seeds = list(range(seed, seed + n))
        draw = self._best_of_finalists if strategy == "halving" else self._best_of_seeds
        best, scores = draw(prompt, seeds, keep, bench, batch_size, arguments)
        checked = [bool(each.is_nsfw) for each in best if each.is_nsfw is not None]
        columns = panel.combine(torch.stack([each.members for each in best], 1)).tolist() if best else []
        return BestOf(
            [each.image for each in best],
            [each.seed for each in best],
            [each.score for each in best],
            scores,
            checked if best and len(checked) == len(best) else None,
            panel.columns[0].measure,
            {column.name: values for column, values in zip(panel.columns[1:], columns[1:], strict=False)},
        )

    def _best_of_finalists(
        self,
        prompt: str,
        seeds: list[int],
        keep: int,
        bench: "Bench",
        batch_size: int,
        arguments: dict[str, Any],
    ) -> tuple[list[Entry], dict[int, float]]:
        """Like `_best_of_seeds`, but finishes only pictures that may win according to their short drafts."""
        fixed = {"timesteps", "sigmas"} & arguments.keys()
        if fixed:
            raise ValueError(f"halving chooses its own steps, not {fixed.pop()}; give num_inference_steps")
        parameters = inspect.signature(self.__call__).parameters
        usual = {"num_inference_steps": 50, "strength": 1.0}
        usual |= {name: parameter.default for name, parameter in parameters.items() if name in usual}
        said = {**usual, **self.generation_config, **arguments}
        steps, strength = said["num_inference_steps"], said["strength"]
        plan = plan_drafts(len(seeds), keep, steps, strength)
        if plan is None:
            return self._best_of_seeds(prompt, seeds, keep, bench, batch_size, arguments)
        shortened = {**arguments, "num_inference_steps": plan.steps}
        _, drafts = self._best_of_seeds(prompt, seeds, 1, bench, batch_size, shortened)
        if getattr(self, "_interrupt", False):
            return [], {}
        order = sorted(drafts, key=lambda each: (-drafts[each], each))
        best, scores = self._best_of_seeds(prompt, order[:keep], keep, bench, batch_size, arguments)
        for each in order[keep : plan.most]:
            if getattr(self, "_interrupt", False):
                break
            drawn = [(drafts[known], score) for known, score in scores.items()]
            if not may_win(drafts[each], list(drafts.values()), drawn, keep):
                break
            more, score = self._best_of_seeds(prompt, [each], 1, bench, 1, arguments)
            best, scores = _first([*best, *more], keep), scores | score
        return best, scores

    def _best_of_seeds(
        self,
        prompt: str,
        seeds: list[int],
        keep: int,
        bench: "Bench",
        batch_size: int,
        arguments: dict[str, Any],
    ) -> tuple[list[Entry], dict[int, float]]:
        """The best pictures of some seeds, best first, and the score of each seed."""
        text = parse_weights(prompt).text
        kept: list[Entry] = []
        scores: dict[int, float] = {}
        for start in range(0, len(seeds), batch_size):
            part = seeds[start : start + batch_size]
            drawn = self(
                prompt,
                num_images_per_prompt=len(part),
                generator=[torch.Generator().manual_seed(each) for each in part],
                output_type="np",
                **_for_each(arguments, len(part)),
            )
            if getattr(self, "_interrupt", False):
                break  # the pictures of this batch are unfinished
            for entry in _judged(bench, text, part, drawn):
                scores[entry.seed] = entry.score
                heapq.heappush(kept, entry)
                if len(kept) > keep and bench.panel.is_by_row:
                    heapq.heappop(kept)
        if kept and not bench.panel.is_by_row:
            kept = _compared(bench, kept)
            scores = {entry.seed: entry.score for entry in kept}
        return _first(kept, keep), scores

    def _bench_of(self, judge: Any) -> "Bench":
        from altdiffusion_clip.judges.encoding import Bench
        from altdiffusion_clip.judges.ensembles import Panel
        from altdiffusion_clip.judges.names import load_panel

        if judge is None:
            judge = self._own_scorer()
        if isinstance(judge, Panel):
            return Bench(judge)
        return Bench(load_panel(judge, self._execution_device, self.unet.dtype, pipeline=self))

    def _own_scorer(self) -> AltCLIPScorer:
        """The head beside the pipeline, loaded once."""
        scorer: AltCLIPScorer | None = getattr(self, "_scorer_of_text_encoder", None)
        if scorer is None or scorer.text_model is not self.text_encoder:
            scorer = AltCLIPScorer.from_pipeline(self)
            self._scorer_of_text_encoder = scorer
        return scorer


def _for_each(arguments: dict[str, Any], count: int) -> dict[str, Any]:
    """The arguments for a batch in which each picture must be the same as if it were drawn alone.

    diffusers encodes a single picture to inpaint with the first generator of the batch, which is then ahead of the
    others. With one picture per prompt, each generator encodes its own.
    """
    image = arguments.get("image")
    if image is None or "mask_image" not in arguments or isinstance(image, list):
        return arguments
    return {**arguments, "image": [image] * count}


def _compared(bench: "Bench", entries: list[Entry]) -> list[Entry]:
    """Pictures with the scores they get when compared with each other."""
    scores = bench.panel.combine(torch.stack([entry.members for entry in entries], 1))[0].tolist()
    return [replace(entry, score=score) for entry, score in zip(entries, scores, strict=True)]


def _first(entries: list[Entry], keep: int) -> list[Entry]:
    return sorted(entries, reverse=True)[:keep]


def _judged(bench: "Bench", text: str, seeds: list[int], drawn: Any) -> Iterator[Entry]:
    """Scores a batch of pictures. Those that are not a number, or whose score is not, are left out with a warning."""
    flags = getattr(drawn, "nsfw_content_detected", None) or [None] * len(seeds)
    pictures: list[tuple[int, Image.Image, bool | None]] = []
    for seed, image, flag in zip(seeds, pictures_of(drawn.images), flags, strict=True):
        if image is None:
            logger.warning("the picture of seed %d is invalid (NaN) and is left out; try float32", seed)
        else:
            pictures.append((seed, image, flag))
    if not pictures:
        return
    from altdiffusion_clip.judges.judging import score_drawn

    members = score_drawn(text, [image for _, image, _ in pictures], bench)
    scores = bench.panel.combine(members)[0].tolist()
    for (seed, image, flag), score, of_each in zip(pictures, scores, members.T, strict=True):
        if math.isfinite(score):
            yield Entry(score, seed, image, flag, of_each)
        else:
            logger.warning("the picture of seed %d is left out: %s", seed, NOT_A_NUMBER)
