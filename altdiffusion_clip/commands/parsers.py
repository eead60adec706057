"""Argument parsers whose help is grouped and ends with examples."""

import argparse
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich_argparse import RawDescriptionRichHelpFormatter

WIDTH = 79


class Help(RawDescriptionRichHelpFormatter):
    """Colours on a terminal, plain text elsewhere."""

    group_name_formatter: ClassVar[Callable[[str], str]] = lambda name: name[:1].upper() + name[1:]


class Parser(argparse.ArgumentParser):
    """A parser whose help ends with examples.

    Args:
        description: one or more paragraphs.
        examples: whole command lines.
        **more: passed to `argparse.ArgumentParser`.
    """

    def __init__(self, *args: Any, description: str = "", examples: Sequence[str] = (), **more: Any) -> None:
        more.setdefault("formatter_class", Help)
        if examples:
            more["epilog"] = "\n  ".join(["Examples:", *examples])
        paragraphs = [textwrap.fill(paragraph, WIDTH) for paragraph in description.split("\n\n")]
        more |= {"description": "\n\n".join(paragraphs), "add_help": False}
        super().__init__(*args, **more)
        self.add_argument("-h", "--help", action="help", help="Show this help.")
