"""Turns texts and pictures into the inputs of an AltCLIP."""

import os
from typing import Any, Self

import transformers

from altdiffusion_clip.checkpoints.model_ids import resolve_scorer


class AltCLIPProcessor(transformers.AltCLIPProcessor):
    """transformers' processor, which also loads from "emoji-m18" and from the AltCLIP in a diffusers folder.

    Example:
        >>> from altdiffusion_clip import AltCLIP
        >>> from PIL import Image
        >>> processor = AltCLIPProcessor.from_pretrained("emoji-m18")
        >>> image = Image.new("RGB", (64, 64), "red")
        >>> inputs = processor(text=["a cat", "猫"], images=image, return_tensors="pt", padding=True)
        >>> AltCLIP.from_pretrained("emoji-m18")(**inputs).logits_per_image.shape
        torch.Size([1, 2])
    """

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Self:
        """Loads a processor.

        Args:
            pretrained_model_name_or_path: "emoji-m18", a folder or hub id of an AltCLIP, or a diffusers folder that has
                one in `scorer`.
            *args: as in transformers.
            **kwargs: as in transformers.

        Raises:
            OSError: there is no processor.
        """
        place, subfolder = resolve_scorer(pretrained_model_name_or_path)
        if subfolder is not None:
            kwargs.setdefault("subfolder", subfolder)
        return super().from_pretrained(place, *args, **kwargs)
