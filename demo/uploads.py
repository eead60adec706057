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


def looked_at(editor: gr.ImageEditor, limits: Limits) -> gr.ImageEditor:
    """Has an editor refuse what is no picture, or too large a one, and gives it back."""
    decode = editor.preprocess

    def preprocess(payload: Any) -> Any:
        if payload is not None:
            for each in (payload.background, *(payload.layers or ()), payload.composite):
                if each is None:
                    continue
                try:
                    limits.picture(each.path)
                except UserError as error:
                    raise gr.Error(both(str(error)), print_exception=False) from None
        return decode(payload)

    editor.preprocess = preprocess  # type: ignore[method-assign]
    return editor
