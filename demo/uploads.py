"""Looking at what comes in before Gradio decodes it.

These wrap `preprocess` of single components; Gradio would write a stub file beside the source of every subclass.
"""

from typing import Any

import gradio as gr

from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.texts import both
from altdiffusion_clip.errors import UserError


def quiet(component: Any) -> Any:
    """Has a component refuse files without a traceback in the server's log, and gives it back."""
    preprocess = component.preprocess

    def quietly(payload: Any) -> Any:
        try:
            return preprocess(payload)
        except gr.Error as error:
            error.print_exception = False
            raise

    component.preprocess = quietly
    return component


def looked_at(component: gr.Image, limits: Limits) -> gr.Image:
    """Has a component refuse what is no picture, or too large a one, and gives it back."""
    decode = component.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is not None:
            try:
                limits.picture(payload.path or "")
            except (OSError, UserError) as error:
                reason = str(error) if isinstance(error, UserError) else "no_picture"
                raise gr.Error(both(reason), print_exception=False) from None
        return decode(payload)

    component.preprocess = preprocess  # type: ignore[method-assign]
    return component
