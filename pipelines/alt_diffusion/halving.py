"""Best-of-N with fewer steps: pictures that do not promise to win are given up while they are drawn.

Successive halving (arXiv 1502.07943) over the schedule: at set points what each picture would become is estimated from
its latents, decoded small, and scored; the better half goes on.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FIRST, LAST = 0.35, 0.75
"""Shares of the schedule after which the first and the last half are given up: earlier, estimates say too little."""


def points(n: int, keep: int, steps: int) -> dict[int, int]:
    """After which steps (from 0) how many pictures go on.

    Example:
        >>> points(8, 1, 20)
        {6: 4, 10: 2, 14: 1}
        >>> points(3, 2, 20)
        {6: 2}
    """
    rounds = math.ceil(math.log2(n / keep))
    found: dict[int, int] = {}
    for number in range(rounds):
        share = FIRST if rounds == 1 else FIRST + (LAST - FIRST) * number / (rounds - 1)
        n = max(keep, math.ceil(n / 2))
        found[max(0, min(steps - 1, round(share * steps) - 1))] = n
    return found


class Halving:
    """Gives up pictures of a running pipeline, as its callback.

    Args:
        pipeline: that draws, one prompt, all pictures in one batch.
        seeds: of the pictures.
        generators: that are given to the pipeline, in a list that is cut here.
        score: of pictures in [0, 1], float (batch, 3, height, width): the better the higher.
        keep: how many go on to the end.
        least_side: pixels that the scorer sees; estimates are not decoded smaller.

    Attributes:
        seeds: of the pictures that go on.
    """

    inputs = ("latents", "prompt_embeds", "negative_prompt_embeds")

    def __init__(
        self,
        pipeline: Any,
        seeds: list[int],
        generators: list[torch.Generator],
        score: Callable[[Tensor], Tensor],
        keep: int,
        least_side: int,
    ) -> None:
        self.seeds = list(seeds)
        self._pipeline, self._generators, self._score = pipeline, generators, score
        self._keep, self._least_side = keep, least_side
        self._estimate: Tensor | None = None
        self._points: dict[int, int] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Looks on while the scheduler steps, to see what it expects of the picture."""
        scheduler = self._pipeline.scheduler
        step = scheduler.step

        @functools.wraps(step)  # pipelines look at its parameters
        def watched(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            wants_dict = kwargs.pop("return_dict", True)
            output = step(model_output, timestep, sample, *args, **kwargs, return_dict=True)
            self._estimate = expected_of(scheduler, output, model_output, timestep, sample)
            return output if wants_dict else (output.prev_sample,)

        scheduler.step = watched
        try:
            yield
        finally:
            del scheduler.step

    @torch.no_grad()
    def __call__(self, pipeline: Any, step: int, timestep: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Called after each step; cuts the batch at the points."""
        del timestep
        if self._points is None:
            self._points = points(len(self.seeds), self._keep, pipeline.num_timesteps)
        count = len(self.seeds)
        wanted = self._points.get(step, count)
        if wanted >= count or self._estimate is None:
            return inputs
        scores = self._score(self._decode(self._estimate))
        # Not a number is worse than any.
        order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[:wanted].sort().values
        places = order.tolist()
        self.seeds = [self.seeds[place] for place in places]
        self._generators[:] = [self._generators[place] for place in places]
        _cut_state(pipeline.scheduler, count, order)
        return {name: _cut(tensor, count, order) for name, tensor in inputs.items() if isinstance(tensor, Tensor)}

    def _decode(self, latents: Tensor) -> Tensor:
        """Pictures in [0, 1], as small as the scorer allows."""
        pipeline = self._pipeline
        factor = pipeline.vae_scale_factor
        while min(latents.shape[-2:]) * factor >= 2 * self._least_side:
            latents = F.avg_pool2d(latents, 2)
        pixels = pipeline.vae.decode(latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1)


def expected_of(scheduler: Any, output: Any, model_output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """What a scheduler expects the latents to become: its own estimate, or that of the noise schedule.

    Raises:
        ValueError: it works in another space; the message names schedulers that do not.
    """
    own = getattr(output, "pred_original_sample", None)
    if own is not None:
        return own
    alphas = getattr(scheduler, "alphas_cumprod", None)
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    # Where the initial noise is scaled up, latents are not those of the noise schedule.
    if alphas is None or float(scheduler.init_noise_sigma) > 1.5 or kind not in ("epsilon", "v_prediction", "sample"):
        raise ValueError(
            f"halving cannot look through a {type(scheduler).__name__}; take a DDIM, PNDM, DPM-Solver or Euler "
            "scheduler"
        )
    alpha = alphas[int(timestep)].to(sample.device, sample.dtype)
    if kind == "sample":
        return model_output
    if kind == "v_prediction":
        return alpha.sqrt() * sample - (1 - alpha).sqrt() * model_output
    return (sample - (1 - alpha).sqrt() * model_output) / alpha.sqrt().clamp(min=1e-4)


def _cut(tensor: Tensor, count: int, places: Tensor) -> Tensor:
    """The rows of the pictures that go on; with guidance there are two halves of them."""
    halves = [half[places.to(tensor.device)] for half in tensor.split(count)]
    return torch.cat(halves)


def _cut_state(scheduler: Any, count: int, places: Tensor) -> None:
    """Cuts what a scheduler of several steps remembers of the batch."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim == 4 and len(value) == count:
            return value[places.to(value.device)]
        return [cut(item) for item in value] if isinstance(value, list) else value

    for name, value in vars(scheduler).items():
        if not name.startswith("_"):
            setattr(scheduler, name, cut(value))
