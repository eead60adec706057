"""The licence of a model."""

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
        id: as in model cards.
        name: for people to read.
        url: of its text; empty if unknown.
    """

    id: str
    name: str
    url: str

    @property
    def restricts_use(self) -> bool:
        """Whether it restricts uses and requires that users are told so (the OpenRAIL family)."""
        return "openrail" in self.id


def licence_of(model: str) -> Licence | None:
    """Finds the licence of a model, from the card (`README.md`) in its folder. Nothing is downloaded.

    Args:
        model: "emoji-m18", a folder, a single file, or a hub id.

    Returns:
        The licence, or None if it is unknown.

    Example:
        >>> licence_of("emoji-m18").name
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
    """The text of the card (`README.md`) in a model's folder without its metadata; empty if there is none.

    Example:
        >>> card_of("emoji-m18").splitlines()[0]
        '# emoji-m18'
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
    except (OSError, ValueError, yaml.YAMLError):  # not UTF-8, or damaged front matter
        return None
    stated = metadata.get("license")
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    return str(stated).lower() if stated else None
