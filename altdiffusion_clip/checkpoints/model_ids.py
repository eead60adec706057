"""What a user may call a model: a hub id, a folder, or the name of one in the package."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

EMOJI_M9, EMOJI_M18 = "emoji-m9", "emoji-m18"
_PACKAGED = {
    EMOJI_M9: ("altdiffusion_clip.emoji", ("scorer", "teacher", "distilled")),
    EMOJI_M18: ("altdiffusion_clip.emoji_m18", ("scorer", "teacher")),
}
"""Models in the package: where each lies, and the models in its folder beside the AltDiffusion.

These are its AltCLIP, the English CLIP that taught it, and stage 1's text encoder.
"""

HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
"""What transformers and diffusers take for huggingface_hub."""

SCORER = "scorer"
"""Name of the AltCLIP folder inside a diffusers folder."""


def emoji_m9_folder() -> Path:
    """Where emoji-m9 lies."""
    return _folder_of(EMOJI_M9)


def is_packaged(name: str) -> bool:
    """Whether a name is that of a model in the package, or of a part of one."""
    first, _, part = name.partition("/")
    return first in _PACKAGED and (not part or part in _PACKAGED[first][1])


def _folder_of(name: str) -> Path:
    return Path(str(resources.files(_PACKAGED[name][0]))) / name


def resolve(name: str | os.PathLike[str]) -> str:
    """The folder of a model in the package for its name, or of a part, as "emoji-m9/teacher"; anything else as it is.

    Example:
        >>> resolve("BAAI/AltDiffusion-m9")
        'BAAI/AltDiffusion-m9'
        >>> Path(resolve("emoji-m9/teacher")).is_dir()
        True
    """
    place = os.fspath(name)
    if not is_packaged(place):
        return place
    first, _, part = place.partition("/")
    return str(_folder_of(first) / part)


def resolve_scorer(name: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Where the AltCLIP of a name lies: a folder or hub id, and the subfolder in it, if any."""
    place = resolve(name)
    if (Path(place) / SCORER / "config.json").is_file():
        return place, SCORER
    return place, None


def looks_local(place: str) -> bool:
    """Whether a name can only be a path, and not a hub id."""
    return place.count("/") != 1 or place.startswith((".", "/", "~")) or place.endswith((".safetensors", ".ckpt"))


def fetch(name: str | os.PathLike[str], **hub: Any) -> Path:
    """The folder or file of a model's name; a hub id is fetched first, whole, safetensors if it has them.

    Args:
        name: "emoji-m9", a folder, a file, or a hub id.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, as in huggingface_hub.

    Raises:
        OSError: there is no such folder, file or repository, or the hub cannot be reached.
    """
    place = resolve(name)
    path = Path(place).expanduser()
    if path.exists():
        return path
    if looks_local(place):
        raise FileNotFoundError(f"there is no file or folder {place}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(place, "model_index.json", **hub)
    except LocalEntryNotFoundError:
        if not hub.get("local_files_only"):
            raise
    except EntryNotFoundError:
        pass
    else:
        from diffusers import DiffusionPipeline

        return Path(DiffusionPipeline.download(place, **hub))
    return fetch_folder(place, **hub)


def fetch_folder(place: str, subfolder: str | None = None, **hub: Any) -> Path:
    """The folder of a place that `resolve_scorer` gave; a hub id is fetched first, safetensors if it has them.

    Nothing of the folders beside it is fetched. Of a hub id without a subfolder it is the one named `scorer`, if there
    is one.

    Args:
        place: a folder or a hub id.
        subfolder: in it.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, as in huggingface_hub.

    Raises:
        OSError: there is no such folder or repository, or the hub cannot be reached.
    """
    if Path(place).is_dir():
        return Path(place) / (subfolder or "")
    if looks_local(place):
        raise FileNotFoundError(f"{place} is not a folder")
    from huggingface_hub import snapshot_download

    if subfolder is None and _is_in_hub(place, f"{SCORER}/config.json", **hub):
        subfolder = SCORER  # a pipeline that brings its scorer
    prefix = f"{subfolder}/" if subfolder else ""
    # The hub's patterns take slashes too: without the second kind, the folders below would all be fetched.
    others = [] if subfolder else ["*/*"]
    small = [f"{prefix}{pattern}" for pattern in ("*.json", "*.txt", "*.model")]
    for weights in ("*.safetensors", "*.bin", "*.pt"):
        patterns = [*small, f"{prefix}{weights}"]
        root = snapshot_download(place, allow_patterns=patterns, ignore_patterns=others, **hub)
        folder = Path(root) / prefix
        if any(folder.glob(weights)):
            break
    return folder


def _is_in_hub(place: str, file: str, **hub: Any) -> bool:
    """Whether a repository has a file, which is fetched if it has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(place, file, **hub)
    except EntryNotFoundError:  # of the hub, or of the cache alone
        return False
    return True


def component_folder(name: str | os.PathLike[str], subfolder: str | None = None, **kwargs: Any) -> Path:
    """Where the weights lie that transformers' `from_pretrained` has loaded with the same arguments."""
    if Path(name).is_dir():
        return Path(name) / (subfolder or "")
    from transformers.utils import cached_file

    hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
    return Path(cached_file(os.fspath(name), "config.json", subfolder=subfolder or "", **hub)).parent
