"""Judges with the verbs of sentence-transformers, which mteb takes too."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageSource
from altdiffusion_clip.judges.base import DualJudge
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import embed_pictures
from altdiffusion_clip.judges.names import as_dual, load_panel
from altdiffusion_clip.scoring import AltCLIPScorer

Vectors = Tensor | np.ndarray


class SentenceEncoder:
    """Texts and pictures as vectors in one space.

    Args:
        judge: an AltCLIP, another judge that gives vectors, or the name of one (see `load_judge`).
        device: for one that is given by name.
        dtype: of its arithmetic.
        batch_size: pictures at a time.

    Raises:
        UserError: it cannot be loaded, or gives scores and no vectors.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import concepts, find_ground
        >>> from altdiffusion_clip.emoji.renders import Placement, render
        >>> encoder = SentenceEncoder("emoji-m18")
        >>> pictures = [render(find_ground("blue"), (thing, Placement())) for thing in concepts()[:8]]
        >>> encoder.similarity(encoder.encode(["猫", "a dog"]), encoder.encode(pictures)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        judge: DualJudge | AltCLIPScorer | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> None:
        self.judge = as_dual(load_panel(judge, device, dtype).columns[0])
        self._bench = Bench.of(self.judge, batch_size)

    def encode(
        self,
        inputs: str | ImageSource | Sequence[str | ImageSource] | Iterable[dict[str, Any]],
        *,
        convert_to_tensor: bool = False,
        **others: Any,
    ) -> Vectors:
        """Encodes texts and pictures.

        Args:
            inputs: a text, a picture, or a list of them, also mixed; a string is always a text. Or batches as mteb
                gives them, with texts under "text" and pictures under "image"; the vector of a text with a picture
                is the sum of theirs.
            convert_to_tensor: give a tensor on the CPU and no array.
            **others: what mteb and sentence-transformers say besides (the task, the progress bar); not used.

        Returns:
            Unit vectors, float32 (inputs, dim); of one text or picture (dim,).

        Raises:
            UserError: a picture cannot be read.
        """
        del others
        is_array = isinstance(inputs, (Tensor, np.ndarray)) and inputs.ndim == 3
        is_one = is_array or isinstance(inputs, (str, os.PathLike, Image.Image))
        items: list[Any] = [inputs] if is_one else list(inputs)  # type: ignore[arg-type]
        if items and isinstance(items[0], dict):
            vectors = torch.cat([self._batch(batch) for batch in items])
        else:
            vectors = self._mixed(items)
        vectors = vectors[0] if is_one else vectors
        return vectors if convert_to_tensor else vectors.numpy()

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Cosine of every vector with every other, float32 (first, second)."""
        first, second = (_rows(each) for each in (embeddings1, embeddings2))
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Cosine of vector i with vector i, float32 (pairs,)."""
        return torch.linalg.vecdot(_rows(embeddings1), _rows(embeddings2))

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb writes beside its results."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        name = self.judge.name.strip("/").replace("/", "__")
        return ModelMeta.create_empty(
            {
                "name": f"altdiffusion-clip/{name}",
                "revision": self._bench.encoder.fingerprint,
                "embed_dim": self.judge.dim,
                "similarity_fn_name": ScoringFunction.COSINE,
                "framework": ["PyTorch"],
                "modalities": ["text", "image"],
            }
        )

    def _batch(self, batch: dict[str, Any]) -> Tensor:
        given = [list(batch[key]) for key in ("text", "image") if key in batch]
        if not given:
            raise UserError(f"a batch has {', '.join(batch)}, and neither text nor image")
        return F.normalize(torch.stack([self._mixed(items) for items in given]).sum(0), dim=-1)

    def _mixed(self, items: Sequence[Any]) -> Tensor:
        vectors = torch.empty(len(items), self.judge.dim)
        texts = [place for place, item in enumerate(items) if isinstance(item, str)]
        pictures = [place for place, item in enumerate(items) if not isinstance(item, str)]
        if texts:
            vectors[texts] = self._bench.encoder.texts([items[place] for place in texts])
        if pictures:
            embedded = embed_pictures(self._bench, [items[place] for place in pictures])
            if embedded.broken:
                place, reason = embedded.broken[0]
                raise UserError(f"picture {pictures[place]} cannot be read: {reason}")
            vectors[pictures] = torch.from_numpy(embedded.vectors)
        return vectors


def _rows(vectors: Vectors) -> Tensor:
    return F.normalize(torch.as_tensor(vectors).float().reshape(-1, vectors.shape[-1]), dim=-1)
