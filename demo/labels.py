"""Switching the page's language without losing what is on it."""

from typing import Any

import gradio as gr

from altdiffusion_clip.demo.texts import say


class Labels:
    """The components whose words change with the language."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, str, str]] = []

    def label(self, component: Any, key: str, field: str = "label") -> Any:
        """Remembers which text a component shows, and gives the component back.

        Args:
            component: of Gradio's.
            key: of the text.
            field: that the text stands in: "label", "value" for buttons and Markdown, "placeholder".
        """
        self._entries.append((component, key, field))
        return component

    @property
    def components(self) -> list[Any]:
        """In the order of `updates`."""
        return [component for component, _, _ in self._entries]

    def updates(self, language: str) -> list[Any]:
        """What to change on the page; values that people have given stay."""
        return [gr.update(**dict[str, Any]({field: say(key, language)})) for _, key, field in self._entries]
