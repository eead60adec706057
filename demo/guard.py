"""What stands around every call of the page: limits, and errors in the visitor's language."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from altdiffusion_clip.demo.limits import RateLimit
from altdiffusion_clip.demo.texts import TEXTS, say
from altdiffusion_clip.errors import UserError, one_line

logger = logging.getLogger(__name__)


@contextmanager
def guarded(rate: RateLimit, request: gr.Request | None, language: str) -> Iterator[None]:
    """Counts a call, and says what is wrong with it in one line.

    Raises:
        gr.Error: shown on the page.
    """
    try:
        if request is not None:
            rate.check(request.username or (request.client.host if request.client else ""))
        yield
    except UserError as error:
        key = str(error)
        message = say(key, language) if key in TEXTS else one_line(error)
        raise gr.Error(message, print_exception=False) from None
    except (gr.Error, GeneratorExit):
        raise
    except Exception as error:
        logger.exception("a call failed")
        raise gr.Error(one_line(error, 200), print_exception=False) from None
