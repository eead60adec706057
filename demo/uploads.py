"""Checks uploads, and reads them in this project's way instead of Gradio's."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from altdiffusion_clip.demo.limits import Limits
from altdiffusion_clip.demo.texts import Refusal, both
from altdiffusion_clip.images import ImageError, load_image


def quiet(component: Any) -> Any:
    """Makes a component reject files without a traceback in the server's log. Returns the component."""

    def preprocess(payload: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(payload)
        except gr.Error as error:
            error.print_exception = False
            raise

    return _reading_by(preprocess, component)


def unchecked(component: Any) -> Any:
    """Makes a component pass on any number. Returns the component.

    Our own limits name the wrong field in the visitor's language. Gradio's do not.
    """
    return _reading_by(lambda payload, read: payload, component)


def looked_at(component: gr.Image, limits: Limits) -> Any:
    """Makes a component of type "filepath" reject anything but pictures of a reasonable size. Returns the component.

    Its calls get a PIL picture from `load_image`, as everywhere. (Gradio would turn transparent parts black, and 16
    bits white.)
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
    """Inserts a function before a component's `preprocess`, by giving it a subclass.

    Gradio creates a component again from its class for each visitor whose page changes it, for example by switching the
    language. Its metaclass would write a stub file beside the source of every subclass, so it is bypassed.
    """
    plain = type(component)

    def wrapped(self: Any, payload: Any) -> Any:
        return preprocess(payload, lambda given: plain.preprocess(self, given))

    body = {"preprocess": wrapped, "__module__": plain.__module__}
    component.__class__ = type.__new__(type(plain), plain.__name__, (plain,), body)
    return component
