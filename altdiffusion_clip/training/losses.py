"""Losses: tensors in, a scalar out."""

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LOGIT_SCALE = 100.0


def info_nce(text_embeds: Tensor, image_embeds: Tensor, logit_scale: Tensor, positives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020) that knows more than one positive per row.

    A caption that stands twice in a batch, or a picture that two captions are true of, would count as a
    negative of itself in the plain loss. Here each row's target is spread evenly over its positives, as in
    supervised contrastive learning (arXiv 2004.11362, equation 2).

    Args:
        text_embeds: float (texts, dim), any length; normalised here.
        image_embeds: float (images, dim), likewise.
        logit_scale: scalar, the natural logarithm of the inverse temperature; clamped at ln 100.
        positives: bool (texts, images), at least one true in each row and column; the diagonal if not given.

    Returns:
        The mean of both directions, in nats.

    Example:
        >>> embeds = torch.eye(4)
        >>> float(info_nce(embeds, embeds, torch.tensor(4.0))) < 1e-6
        True
    """
    text_embeds, image_embeds = F.normalize(text_embeds, dim=-1), F.normalize(image_embeds, dim=-1)
    logits = logit_scale.exp().clamp(max=MAX_LOGIT_SCALE) * text_embeds @ image_embeds.T
    if positives is None:
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    weights = positives.to(logits.dtype)
    per_text = -(logits.log_softmax(1) * weights).sum(1) / weights.sum(1)
    per_image = -(logits.log_softmax(0) * weights).sum(0) / weights.sum(0)
    return 0.5 * (per_text.mean() + per_image.mean())
