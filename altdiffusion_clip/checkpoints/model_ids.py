"""The names of models: a hub id, a folder, or a model in the package."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

from altdiffusion_clip.errors import UserError

EMOJI_M18 = "emoji-m18"
DEFAULT_MODEL = EMOJI_M18
"""The model in the package, for commands and functions that are not told another."""

_PARTS = ("scorer", "teacher")
"""Other models in its folder: the AltCLIP, and the English CLIP that was its teacher."""

_RETIRED = "emoji-m9"

HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
"""The keyword arguments of transformers and diffusers that go to huggingface_hub."""

SCORER = "scorer"
"""The name of the AltCLIP folder inside a diffusers folder."""


def emoji_m18_folder() -> Path:
    """The folder of emoji-m18 in the package."""
    return Path(str(resources.files("altdiffusion_clip"))) / "emoji" / EMOJI_M18


def is_packaged(name: str) -> bool:
    """Whether a name is the model in the package, or a part of it."""
    first, _, part = name.partition("/")
    return first == EMOJI_M18 and (not part or part in _PARTS)


def resolve(name: str | os.PathLike[str]) -> str:
    """The folder of the packaged model for its name, or of a part, as "emoji-m18/teacher"; anything else as it is.

    Raises:
        UserError: the name is emoji-m9's, which was in the package before.

    Example:
        >>> resolve("BAAI/AltDiffusion-m9")
        'BAAI/AltDiffusion-m9'
        >>> Path(resolve("emoji-m18/teacher")).is_dir()
        True
    """
    place = os.fspath(name)
    if place.split("/")[0] == _RETIRED and not Path(place).exists():
        raise UserError(f"{_RETIRED} is no longer in the package; use its successor, {EMOJI_M18}, which draws better")
    return str(emoji_m18_folder() / place.partition("/")[2]) if is_packaged(place) else place


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
        name: "emoji-m18", a folder, a file, or a hub id.
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
    """The local folder of what `resolve_scorer` returned. A hub id is downloaded first, safetensors if it has them.

    Other folders of the repository are not downloaded. For a hub id without a subfolder, it is the folder `scorer` if
    there is one.

    Args:
        place: a folder or a hub id.
        subfolder: in it.
        **hub: `revision`, `token`, `cache_dir`, `local_files_only`, as in huggingface_hub.

    Raises:
        OSError: the folder or repository does not exist, or the hub cannot be reached.
    """
    if Path(place).is_dir():
        return Path(place) / (subfolder or "")
    if looks_local(place):
        raise FileNotFoundError(f"{place} is not a folder")
    from huggingface_hub import snapshot_download

    if subfolder is None and _is_in_hub(place, f"{SCORER}/config.json", **hub):
        subfolder = SCORER  # a pipeline with its scorer
    prefix = f"{subfolder}/" if subfolder else ""
    # In the hub's patterns, * matches slashes too: without the second kind, all subfolders would be downloaded.
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
    """Whether a repository has a file; if so, it is downloaded."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        hf_hub_download(place, file, **hub)
    except EntryNotFoundError:  # from the hub, or only from the cache
        return False
    return True


def component_folder(name: str | os.PathLike[str], subfolder: str | None = None, **kwargs: Any) -> Path:
    """The path of the weights that transformers' `from_pretrained` loaded with the same arguments."""
    if Path(name).is_dir():
        return Path(name) / (subfolder or "")
    from transformers.utils import cached_file

    hub = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
    return Path(cached_file(os.fspath(name), "config.json", subfolder=subfolder or "", **hub)).parent
