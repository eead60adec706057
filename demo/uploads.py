"""Looking at what comes in, and reading it in this project's way and not in Gradio's."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.texts import Refusal, both
from altdiffusion_clip.images import ImageError, load_image


def quiet(component: Any) -> Any:
    """Has a component refuse files without a traceback in the server's log, and gives it back."""

    def preprocess(payload: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(payload)
        except gr.Error as error:
            error.print_exception = False
            raise

    return _reading_by(preprocess, component)


def unchecked(component: Any) -> Any:
    """Has a component hand on any number, and gives it back.

    Our own limits name the field that is wrong, in the visitor's language; Gradio's do not.
    """
    return _reading_by(lambda payload, read: payload, component)


def looked_at(component: gr.Image, limits: Limits) -> Any:
    """Has a component of type "filepath" refuse what is no picture, or too large a one, and gives it back.

    Its calls get a PIL picture as `load_image` reads it everywhere. (Gradio would make transparent parts black, and
    sixteen bits white.)
    """

    def preprocess(payload: Any, read: Callable[[Any], Any]) -> Any:
        if payload is None:
            return None
        try:
            limits.picture(payload.path or "")
            return load_image(str(read(payload)))
        except (OSError, ImageError, Refusal) as error:
            reason = error if isinstance(error, Refusal) else Refusal("no_picture")
            raise gr.Error(both(reason.key), print_exception=False) from None

    return _reading_by(preprocess, component)


def _reading_by(preprocess: Callable[[Any, Callable[[Any], Any]], Any], component: Any) -> Any:
    """Puts a function before a component's `preprocess`, by a class of its own.

    Gradio makes a component anew, from its class, for each visitor whose page changes it, as another language does.
    Its metaclass would write a stub file beside the source of every subclass, so it is passed by.
    """
    plain = type(component)

    def wrapped(self: Any, payload: Any) -> Any:
        return preprocess(payload, lambda given: plain.preprocess(self, given))

    body = {"preprocess": wrapped, "__module__": plain.__module__}
    component.__class__ = type.__new__(type(plain), plain.__name__, (plain,), body)
    return component
