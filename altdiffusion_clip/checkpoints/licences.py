"""Under which licence a model is published."""

import re
from dataclasses import dataclass
from pathlib import Path

from altdiffusion_clip.checkpoints.model_ids import resolve

_KNOWN = {
    "apache-2.0": ("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "mit": ("MIT", "https://opensource.org/license/mit"),
    "creativeml-openrail-m": (
        "CreativeML OpenRAIL-M",
        "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    ),
    "openrail++": (
        "CreativeML OpenRAIL++-M",
        "https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL",
    ),
}
_OPENRAIL_M = "creativeml-openrail-m"
_PUBLISHED = dict.fromkeys(("BAAI/AltDiffusion", "BAAI/AltDiffusion-m9", "BAAI/AltDiffusion-m18"), _OPENRAIL_M)


@dataclass(frozen=True)
class Licence:
    """A licence.

    Attributes:
        id: as model cards write it.
        name: as people write it.
        url: where its text is; empty if not known.
    """

    id: str
    name: str
    url: str

    @property
    def restricts_use(self) -> bool:
        """Whether it forbids uses, and asks that everybody who uses the model be told so (the OpenRAIL family)."""
        return "openrail" in self.id


def licence_of(model: str) -> Licence | None:
    """The licence of a model, from its card (`README.md`) if that lies in its folder; nothing is fetched.

    Args:
        model: "emoji-m9", a folder, a single file, or a hub id.

    Returns:
        The licence; None if neither the card nor this project knows of one.

    Example:
        >>> licence_of("emoji-m9").name
        'Apache-2.0'
        >>> licence_of("BAAI/AltDiffusion-m9").restricts_use
        True
    """
    licence = _PUBLISHED.get(model)
    card = _card_path(model)
    if licence is None and card.is_file():
        licence = _stated(card)
    if licence is None:
        return None
    return Licence(licence, *_KNOWN.get(licence, (licence, "")))


def card_of(model: str) -> str:
    """The text of a model's card (`README.md`) without its metadata; empty if there is none in its folder.

    Example:
        >>> card_of("emoji-m9").splitlines()[0]
        '# emoji-m9'
    """
    path = _card_path(model)
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL).lstrip()


def _card_path(model: str) -> Path:
    return Path(resolve(model)).expanduser() / "README.md"


def _stated(card: Path) -> str | None:
    import yaml
    from huggingface_hub.repocard import metadata_load

    try:
        metadata = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):  # no UTF-8, or damaged front matter
        return None
    stated = metadata.get("license")
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    return str(stated).lower() if stated else None
