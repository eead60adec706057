"""All that decides a picture's pixels."""

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Self

from altdiffusion_clip.checkpoints.generation_config import read_generation_config
from altdiffusion_clip.schedulers import scheduler_name

STEPS = 20
"""Steps of the scheduler, where the user names no number."""

GUIDANCE_SCALE = 7.5
"""diffusers' default for Stable Diffusion."""

OF_THE_BATCH = ("batch_seeds", "batch_prompts")
"""Settings that say what was drawn beside a picture, and nothing of the picture itself."""


def usual_guidance_scale(model: str) -> float:
    """The guidance scale that suits a model, by the name that the user gave it."""
    return float(read_generation_config(model).get("guidance_scale", GUIDANCE_SCALE))


def usual_steps(model: str) -> int:
    """The number of steps that suits a model, by the name that the user gave it."""
    return int(read_generation_config(model).get("num_inference_steps", STEPS))


@dataclass(frozen=True)
class Settings:
    """All that decides a picture's pixels, beside the weights and the machine.

    Attributes:
        prompt: what to draw.
        seed: of this picture's first latents.
        batch_seeds: seeds of the pictures that were drawn in one batch with it, in order, since in half precision
            batches of another size round differently. In float32 every picture is drawn alone.
        model: as the user named it.
        negative_prompt: what to keep out.
        num_inference_steps: of the scheduler.
        guidance_scale: of classifier-free guidance.
        height: in pixels; None for the model's own, or that of the picture that is changed.
        width: likewise.
        device: where it was drawn.
        dtype: of weights and arithmetic.
        prompt_windows: of 77 tokens each, which the prompt may take.
        fast: the dtype of an optimized pipeline's UNet, whose pictures are nearly the same; empty if it was not.
        scheduler: a name of `altdiffusion_clip.schedulers`; empty for the model's own.
        strength: of a change to another picture; None where there was none.
        batch_prompts: prompts of the pictures of the batch, if they are not all this one's.
        lora: files or hub ids of LoRAs with their weights, as "NAME:WEIGHT, NAME:WEIGHT".
        image: path of the picture that is changed; empty if it was none, or is not known.
        mask: path of a picture that is white where `image` is drawn anew.
    """

    prompt: str
    seed: int
    batch_seeds: tuple[int, ...]
    model: str
    negative_prompt: str = ""
    num_inference_steps: int = STEPS
    guidance_scale: float = GUIDANCE_SCALE
    height: int | None = None
    width: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    prompt_windows: int = 1
    fast: str = ""
    scheduler: str = ""
    strength: float | None = None
    batch_prompts: tuple[str, ...] = ()
    lora: str = ""
    image: str = ""
    mask: str = ""

    def __post_init__(self) -> None:
        """Takes the WebUIs' names of schedulers too.

        Raises:
            UserError: there is no such scheduler.
        """
        object.__setattr__(self, "scheduler", scheduler_name(self.scheduler))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings as JSON has them.

        Raises:
            TypeError: one is not there, is unknown, or is of another kind.
            KeyError: likewise.
        """
        tuples = {name: tuple(values.get(name, ())) for name in OF_THE_BATCH}
        settings = cls(**{**values, **tuples})
        for field in fields(cls):
            _check_kind(field.name, getattr(settings, field.name), field.type)
        return settings

    @property
    def is_alone(self) -> bool:
        """Whether it is drawn alone, so that it does not depend on what is drawn beside it."""
        return self.dtype == "float32" and self.fast in ("", "float32")

    def beside(self, others: "list[Settings]") -> Self:
        """The same picture in a batch."""
        prompts = tuple(other.prompt for other in others)
        is_one = all(prompt == self.prompt for prompt in prompts)
        return replace(self, batch_seeds=tuple(other.seed for other in others), batch_prompts=() if is_one else prompts)

    def batch_key(self) -> tuple[Any, ...]:
        """What pictures of one batch have in common: all but prompt and seed."""
        apart = {"prompt", "seed", *OF_THE_BATCH}
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in apart)

    def difference(self, other: dict[str, Any]) -> str:
        """The first setting of a picture that differs in a row of results, as "name is A, not B"; empty if none does.

        A device is no difference: a run may go on elsewhere.
        """
        for field in fields(self):
            if field.name in (*OF_THE_BATCH, "device"):
                continue
            mine = getattr(self, field.name)
            theirs = other.get(field.name, None if field.default is MISSING else field.default)
            if mine != theirs:
                return f"{field.name} is {theirs!r}, not {mine!r}"
        return ""


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if name in OF_THE_BATCH:
        right = all(isinstance(each, int if name == "batch_seeds" else str) for each in value)
    else:
        right = isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))
    if not right:
        raise TypeError(f"{name} is {value!r}")
