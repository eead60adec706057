"""What a user may call a model: a hub id, a folder, or the word emoji-m9."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

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


def fetch_folder(place: str, subfolder: str | None = None, **hub: Any) -> Path:
    """The folder of a place that `resolve_scorer` gave; a hub id is fetched first, safetensors if it has them.

    Args:
        place: a folder or a hub id.
        subfolder: in it.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, as in huggingface_hub.

    Raises:
        OSError: there is no such folder or repository, or the hub cannot be reached.
    """
    if Path(place).is_dir():
        return Path(place) / (subfolder or "")
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{place} is not a folder")
    from huggingface_hub import snapshot_download

    prefix = f"{subfolder}/" if subfolder else ""
    small = [f"{prefix}{pattern}" for pattern in ("*.json", "*.txt", "*.model")]
    folder = Path(snapshot_download(place, allow_patterns=[*small, f"{prefix}*.safetensors"], **hub)) / prefix
    if not any(folder.glob("*.safetensors")):
        snapshot_download(place, allow_patterns=[*small, f"{prefix}*.bin"], **hub)
    return folder
