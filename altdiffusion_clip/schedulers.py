"""Schedulers by short names and by the WebUIs' names."""

from typing import TYPE_CHECKING, Any, NamedTuple

from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin


class Scheduler(NamedTuple):
    """A kind of scheduler.

    Attributes:
        sampler: its name in the AUTOMATIC1111 WebUI.
        diffusers: the name of diffusers' class.
        options: keyword arguments of that class.
    """

    sampler: str
    diffusers: str
    options: dict[str, Any] = {}


_MULTISTEP = "DPMSolverMultistepScheduler"
_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}

SCHEDULERS = {
    "ddim": Scheduler("DDIM", "DDIMScheduler"),
    "deis": Scheduler("DEIS", "DEISMultistepScheduler"),
    "dpm++": Scheduler("DPM++ 2M", _MULTISTEP),
    "dpm++-karras": Scheduler("DPM++ 2M Karras", _MULTISTEP, _KARRAS),
    "dpm++-sde": Scheduler("DPM++ 2M SDE", _MULTISTEP, _SDE),
    "dpm++-sde-karras": Scheduler("DPM++ 2M SDE Karras", _MULTISTEP, {**_SDE, **_KARRAS}),
    "euler": Scheduler("Euler", "EulerDiscreteScheduler"),
    "euler-a": Scheduler("Euler a", "EulerAncestralDiscreteScheduler"),
    "heun": Scheduler("Heun", "HeunDiscreteScheduler"),
    # As in Stable Diffusion: without this option PNDM adds warm-up steps, and fails with fewer than four.
    "pndm": Scheduler("PLMS", "PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": Scheduler("UniPC", "UniPCMultistepScheduler"),
}
"""Kinds of schedulers by their short names."""

_NAMES = {each.sampler.lower(): name for name, each in SCHEDULERS.items()} | {name: name for name in SCHEDULERS}


def scheduler_name(given: str) -> str:
    """The short name of a scheduler.

    Args:
        given: a short name or a WebUI's name, in any case; empty for the model's own.

    Raises:
        UserError: there is no such scheduler.

    Example:
        >>> scheduler_name("DPM++ 2M Karras")
        'dpm++-karras'
    """
    if not given:
        return ""
    name = _NAMES.get(" ".join(given.lower().split()))
    if name is None:
        raise UserError(f"there is no scheduler {given!r}; choose one of {', '.join(SCHEDULERS)}")
    return name


def scheduler_like(current: Any, name: str) -> "SchedulerMixin":
    """Makes a scheduler of another kind with the model's betas, prediction type and spacing.

    Args:
        current: the model's own scheduler.
        name: as in `scheduler_name`; empty for a new one of the same kind.

    Raises:
        UserError: there is no such scheduler.

    Example:
        >>> from diffusers import DDIMScheduler
        >>> type(scheduler_like(DDIMScheduler(), "Euler a")).__name__
        'EulerAncestralDiscreteScheduler'
    """
    import diffusers

    if not name:
        return type(current).from_config(current.config)
    kind = SCHEDULERS[scheduler_name(name)]
    return getattr(diffusers, kind.diffusers).from_config(current.config, **kind.options)
