"""The settings that decide a picture's pixels."""

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Self

from altdiffusion_clip.checkpoints.generation_config import read_generation_config
from altdiffusion_clip.prompts.normalising import without_surrogates
from altdiffusion_clip.schedulers import scheduler_name

STEPS = 20
"""The default number of scheduler steps."""

GUIDANCE_SCALE = 7.5
"""diffusers' default for Stable Diffusion."""

OF_THE_BATCH = ("batch_seeds", "batch_prompts")
"""Settings that describe the rest of a picture's batch, not the picture itself."""


def usual_guidance_scale(model: str) -> float:
    """A model's own default guidance scale."""
    return float(read_generation_config(model).get("guidance_scale", GUIDANCE_SCALE))


def usual_steps(model: str) -> int:
    """A model's own default number of steps."""
    return int(read_generation_config(model).get("num_inference_steps", STEPS))


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture's pixels, apart from the weights and the machine.

    Attributes:
        prompt: what to draw.
        seed: of this picture's initial latents.
        batch_seeds: the seeds of its batch, in order. In half precision, batches of another size round differently. In
            float32 every picture is drawn alone.
        model: as the user named it.
        negative_prompt: what to keep out.
        num_inference_steps: scheduler steps.
        guidance_scale: of classifier-free guidance.
        height: in pixels; None for the model's default, or the height of the picture that is changed.
        width: likewise.
        device: where it was drawn.
        dtype: of weights and arithmetic.
        prompt_windows: how many windows of 77 tokens the prompt may have.
        fast: the dtype of an optimized pipeline's UNet, whose pictures are nearly the same; empty if not optimized.
        scheduler: a name of `altdiffusion_clip.schedulers`; empty for the model's own.
        strength: of a change to another picture; None if there is none.
        batch_prompts: the prompts of its batch, if they differ.
        lora: files or hub ids of LoRAs with their weights, as "NAME:WEIGHT, NAME:WEIGHT".
        image: path of the picture that is changed; empty if there is none or it is unknown.
        mask: path of a picture that is white where `image` is to be redrawn.
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
        """Translates the WebUIs' names of schedulers, and makes texts printable.

        Raises:
            UserError: there is no such scheduler.
        """
        object.__setattr__(self, "scheduler", scheduler_name(self.scheduler))
        for name in ("prompt", "negative_prompt"):
            object.__setattr__(self, name, without_surrogates(getattr(self, name)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Makes settings from JSON.

        Raises:
            TypeError: a setting is missing, unknown or of the wrong type.
            KeyError: likewise.
        """
        tuples = {name: tuple(values.get(name, ())) for name in OF_THE_BATCH}
        settings = cls(**{**values, **tuples})
        for field in fields(cls):
            _check_kind(field.name, getattr(settings, field.name), field.type)
        return settings

    @property
    def is_alone(self) -> bool:
        """Whether the picture is drawn alone, so that it does not depend on a batch."""
        return self.dtype == "float32" and self.fast in ("", "float32")

    def beside(self, others: "list[Settings]") -> Self:
        """The settings of the same picture in a batch."""
        prompts = tuple(other.prompt for other in others)
        is_one = all(prompt == self.prompt for prompt in prompts)
        return replace(self, batch_seeds=tuple(other.seed for other in others), batch_prompts=() if is_one else prompts)

    def batch_key(self) -> tuple[Any, ...]:
        """What the pictures of a batch have in common: everything but prompt and seed."""
        apart = {"prompt", "seed", *OF_THE_BATCH}
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in apart)

    def difference(self, other: dict[str, Any]) -> str:
        """The first setting that differs from those in a row of results, as "name is A, not B"; empty if none does.

        The device does not count: a run may be continued elsewhere.
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
