"""The page's files."""

from importlib import resources


def text_of(name: str) -> str:
    """A file beside this one."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
