"""What a user may call a model: a hub id, a folder, or the word emoji-m9."""

import os
from importlib import resources
from pathlib import Path

EMOJI_M9 = "emoji-m9"
SCORER = "scorer"
"""Name of the AltCLIP folder inside a diffusers folder."""


def emoji_m9_folder() -> Path:
    """Where the embedded model lies."""
    return Path(str(resources.files("altdiffusion_clip.emoji"))) / EMOJI_M9


def resolve(name: str | os.PathLike[str]) -> str:
    """The folder of emoji-m9 for its name; anything else as it is.

    Example:
        >>> resolve("BAAI/AltDiffusion-m9")
        'BAAI/AltDiffusion-m9'
    """
    return str(emoji_m9_folder()) if os.fspath(name) == EMOJI_M9 else os.fspath(name)


def resolve_scorer(name: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Where the AltCLIP of a name lies: a folder or hub id, and the subfolder in it, if any."""
    place = resolve(name)
    if (Path(place) / SCORER / "config.json").is_file():
        return place, SCORER
    return place, None
