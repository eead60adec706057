"""How a user names a system, and which adapter that is."""

from pathlib import Path

import torch

from altdiffusion_clip.checkpoints.model_ids import SCORER
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.text_files import read_json
from altdiffusion_clip.evaluation.systems import altclip, composed, dual_encoders, open_clip
from altdiffusion_clip.evaluation.systems.base import System, place_of

_OPEN_CLIP = "open_clip:"


def load_system(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> System:
    """Loads a system by the name that a user gives it.

    Args:
        name: "emoji-m9" or its English teacher, "emoji-m9/teacher"; a folder or hub id of an AltCLIP, CLIP,
            Chinese-CLIP, SigLIP or SigLIP 2; "TEXT+VISION" for Taiyi's or M-CLIP's text tower with a CLIP's vision
            tower; "open_clip:ARCHITECTURE@WEIGHTS".
        device: for it.
        dtype: of weights and arithmetic.

    Raises:
        UserError: it cannot be loaded; the message is one line.

    Example:
        >>> load_system("emoji-m9").encode_texts(["猫", "a cat"]).shape
        torch.Size([2, 128])
    """
    device = torch.device(device)
    if name.startswith(_OPEN_CLIP):
        return open_clip.load(name, name.removeprefix(_OPEN_CLIP), device, dtype)
    text, plus, vision = name.partition("+")
    if plus and not Path(name).exists():
        return composed.load(name, place_of(text), place_of(vision), device, dtype)
    place = place_of(name)
    if place.is_file() or (place / SCORER / "config.json").is_file():
        return altclip.load(name, device, dtype)
    if not (place / "config.json").is_file():
        raise UserError(f"{name} is no system that can be measured: {place} has no config.json")
    kind = read_json(place / "config.json").get("model_type")
    if kind == "altclip":
        return altclip.load(name, device, dtype)
    if kind in dual_encoders.MODEL_TYPES:
        return dual_encoders.load(name, place, kind, device, dtype)
    raise UserError(
        f"{name} is a {kind}; what can be measured is AltCLIP, {', '.join(dual_encoders.MODEL_TYPES)}, and text towers "
        "alone as TEXT+VISION"
    )
