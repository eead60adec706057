"""Schedulers by the short names that people know them by."""

from typing import TYPE_CHECKING, Any

from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short name to the name of diffusers' class."""


_FOR_KIND: dict[str, dict[str, Any]] = {"pndm": {"skip_prk_steps": True}}
"""What Stable Diffusion sets for a kind: without it, PNDM begins with four steps more, and fails with fewer."""


def check_scheduler(name: str) -> None:
    """Looks whether there is a scheduler of that name; the empty one is the model's own.

    Raises:
        UserError: there is none.
    """
    if name and name not in SCHEDULERS:
        raise UserError(f"there is no scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}")


def scheduler_like(current: Any, name: str) -> "SchedulerMixin":
    """A scheduler of another kind for the same model: betas, prediction and spacing are the model's.

    Args:
        current: the model's own scheduler.
        name: a key of `SCHEDULERS`; empty for a new one of the same kind.

    Raises:
        UserError: there is no such name.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> type(scheduler_like(DDIMScheduler(), "euler-a")).__name__
        'EulerAncestralDiscreteScheduler'
    """
    import diffusers

    check_scheduler(name)
    if not name:
        return type(current).from_config(current.config)
    return getattr(diffusers, SCHEDULERS[name]).from_config(current.config, **_FOR_KIND.get(name, {}))
