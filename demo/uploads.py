"""Looking at what comes in, and reading it in this project's way and not in Gradio's.

These wrap `preprocess` of single components; Gradio would write a stub file beside the source of every subclass.
"""

from typing import Any

import gradio as gr

from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.texts import both
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError, load_image


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
    """Has a component of type "filepath" refuse what is no picture, or too large a one, and gives it back.

    Its calls get a PIL picture as `load_image` reads it everywhere. (Gradio would make transparent parts black, and
    sixteen bits white.)
    """
    path_of = component.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is None:
            return None
        try:
            limits.picture(payload.path or "")
            return load_image(str(path_of(payload)))
        except (OSError, ImageError, UserError) as error:
            reason = str(error) if isinstance(error, UserError) else "no_picture"
            raise gr.Error(both(reason), print_exception=False) from None

    component.preprocess = preprocess  # type: ignore[method-assign]
    return component
