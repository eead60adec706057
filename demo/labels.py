"""Switches the language of the page without losing its contents."""

from typing import Any

import gradio as gr

from altdiffusion_clip.demo.texts import say


class Labels:
    """The components whose texts change with the language."""

    def __init__(self) -> None:
        self._entries: list[tuple[Any, str, str]] = []

    def label(self, component: Any, key: str, field: str = "label") -> Any:
        """Registers the text of a component, and returns the component.

        Args:
            component: from Gradio.
            key: of the text.
            field: for the text: "label", "value" for buttons and Markdown, or "placeholder".
        """
        self._entries.append((component, key, field))
        return component

    @property
    def components(self) -> list[Any]:
        """The components in the order of `updates`."""
        return [component for component, _, _ in self._entries]

    def updates(self, language: str) -> list[Any]:
        """Updates for the page. Values that people entered stay."""
        return [gr.update(**dict[str, Any]({field: say(key, language)})) for _, key, field in self._entries]
