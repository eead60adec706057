"""Keeps word embeddings in their file. They are almost half of the text encoder, and a prompt needs a few rows."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORD_EMBEDDINGS = "roberta.embeddings.word_embeddings"
"""The name of the embeddings in the text encoder."""


class OffloadedEmbedding(nn.Module):
    """An embedding table that stays on the CPU or memory-mapped, whatever device the model moves to.

    Looked-up rows are copied to the model's device and dtype. The table is not trained.

    Args:
        num_embeddings: rows.
        embedding_dim: columns.
        padding_idx: as nn.Embedding's.

    Example:
        >>> embedding = OffloadedEmbedding(9, 4)
        >>> embedding.attach(torch.eye(9, 4))
        >>> embedding.half()(torch.tensor([[2]]))
        tensor([[[0., 0., 1., 0.]]], dtype=torch.float16)
    """

    _like: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self._table: Tensor | None = None  # neither a parameter nor a buffer, so that .to() does not move it
        self.register_buffer("_like", torch.empty(0), persistent=False)

    def attach(self, table: Tensor) -> None:
        """Sets the table.

        Args:
            table: (num_embeddings, embedding_dim), on the CPU, in any floating dtype; shared, not copied.

        Raises:
            ValueError: the shape is wrong.
        """
        if table.shape != (self.num_embeddings, self.embedding_dim):
            raise ValueError(
                f"embeddings of shape {tuple(table.shape)}, not {(self.num_embeddings, self.embedding_dim)}"
            )
        self._table = table.detach()

    def resize(self, num_embeddings: int) -> None:
        """Changes the number of rows. New rows are zero. The table is then in memory, since its file has fewer rows."""
        table = torch.zeros(num_embeddings, self.embedding_dim, dtype=self.weight.dtype)
        kept = min(num_embeddings, self.num_embeddings)
        table[:kept] = self.weight[:kept]
        self.num_embeddings = num_embeddings
        self.attach(table)

    @property
    def weight(self) -> Tensor:
        """The whole table, on the CPU or memory-mapped."""
        if self._table is None:
            raise ValueError("these embeddings have no table yet; see OffloadedEmbedding.attach")
        return self._table

    def forward(self, input_ids: Tensor) -> Tensor:
        """Looks up rows: (...,) int64 to (..., embedding_dim) in the model's dtype, on the device of the ids."""
        return F.embedding(input_ids.cpu(), self.weight).to(input_ids.device, self._like.dtype)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._table is not None:
            destination[prefix + "weight"] = self._table


def offloaded_in_place_of(embedding: nn.Embedding) -> OffloadedEmbedding:
    """An empty offloaded embedding of the same shape."""
    return OffloadedEmbedding(embedding.num_embeddings, embedding.embedding_dim, embedding.padding_idx)
