"""Makes pipelines from the components of another one without changing them."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from diffusers import DiffusionPipeline

OUR_STATE = (
    "_generation_config",
    "_emphasis",
    "_prompt_windows",
    "_prompts_kept",
    "_optimizations",
    "_scorer_of_text_encoder",
)
"""The state that our mixins keep on a pipeline besides its components."""

_making: ContextVar[bool] = ContextVar("making a pipeline of another's parts", default=False)


def carry_over(old: Any, new: Any) -> Any:
    """Copies the state of our mixins from a pipeline to one that shares its components. Returns the latter."""
    if isinstance(new, AltDiffusionFromPipeMixin):
        new.__dict__.update({name: vars(old)[name] for name in OUR_STATE if name in vars(old)})
    return new


class AltDiffusionFromPipeMixin(DiffusionPipeline if TYPE_CHECKING else object):  # type: ignore[misc]
    """`from_pipe` for every AltDiffusion pipeline. It must come before the diffusers class."""

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Self:
        """Makes a pipeline from another's components without extra memory.

        diffusers casts the shared components to float32. Here each keeps its dtype, unless one is given, and the new
        pipeline keeps the first one's long prompts, encoded prompts and optimizations.

        Args:
            pipeline: any Stable Diffusion pipeline with our text encoder.
            **kwargs: as in `diffusers.DiffusionPipeline.from_pipe`: other components, `dtype`.

        Example:
            >>> import torch
            >>> from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionPipeline
            >>> pipe = AltDiffusionPipeline.from_pretrained("emoji-m18", dtype=torch.bfloat16)
            >>> AltDiffusionImg2ImgPipeline.from_pipe(pipe).unet.dtype
            torch.bfloat16
        """
        named = kwargs.get("dtype") is not None or kwargs.get("torch_dtype") is not None
        token = _making.set(not named)
        try:
            new = super().from_pipe(pipeline, **kwargs)
        finally:
            _making.reset(token)
        return carry_over(pipeline, new)  # type: ignore[no-any-return]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Moves or casts the pipeline, as in diffusers."""
        return self if _making.get() else super().to(*args, **kwargs)
