"""Losses: tensors in, a scalar out."""

import torch
from torch import Tensor
from torch.nn import functional as F

SNR_GAMMA = 5.0


def info_nce(text_embeds: Tensor, image_embeds: Tensor, logit_scale: Tensor, positives: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020) with more than one positive per row.

    In the plain loss, a caption that occurs twice in a batch, or a picture with two true captions, would count as its
    own negative. Here each row's target is spread evenly over its positives, as in supervised contrastive learning
    (arXiv 2004.11362, equation 2).

    Args:
        text_embeds: float (texts, dim), of any norm; normalised here.
        image_embeds: float (images, dim), likewise.
        logit_scale: scalar, the natural logarithm of the inverse temperature. It is not clamped here, because a clamped
            number has no gradient: see `altdiffusion_clip.training.temperature`.
        positives: bool (texts, images), at least one true per row and column; by default the diagonal.

    Returns:
        The mean of both directions, in nats.

    Example:
        >>> embeds = torch.eye(4)
        >>> float(info_nce(embeds, embeds, torch.tensor(4.0))) < 1e-6
        True
    """
    text_embeds, image_embeds = F.normalize(text_embeds, dim=-1), F.normalize(image_embeds, dim=-1)
    logits = logit_scale.exp() * text_embeds @ image_embeds.T
    if positives is None:
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    weights = positives.to(logits.dtype)
    per_text = -(logits.log_softmax(1) * weights).sum(1) / weights.sum(1)
    per_image = -(logits.log_softmax(0) * weights).sum(0) / weights.sum(0)
    return 0.5 * (per_text.mean() + per_image.mean())


def diffusion_loss(
    prediction: Tensor, target: Tensor, snr: Tensor, prediction_type: str, weights: Tensor | None = None
) -> Tensor:
    """The squared error of a denoiser with min-SNR weights (arXiv 2303.09556), gamma 5.

    The weight of the error in the picture grows with the signal-to-noise ratio only up to gamma. At an SNR of zero,
    nothing of the picture is left. v-prediction (arXiv 2202.00512) still has full weight there, as a schedule that ends
    in pure noise needs (arXiv 2305.08891).

    Args:
        prediction: float (batch, ...).
        target: the noise or the velocity, with the shape of `prediction`.
        snr: float (batch,), of each example.
        prediction_type: "epsilon" or "v_prediction".
        weights: float (batch,), further weights of the examples; 1 by default.

    Returns:
        The mean over examples and elements.

    Raises:
        ValueError: another prediction type.

    Example:
        >>> float(diffusion_loss(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([10.0]), "epsilon"))
        0.5
    """
    if prediction_type == "v_prediction":
        weight = (snr.clamp(max=SNR_GAMMA) + 1) / (snr + 1)
    elif prediction_type == "epsilon":
        weight = snr.clamp(max=SNR_GAMMA) / snr.clamp(min=1e-8)
    else:
        raise ValueError(f"prediction_type is {prediction_type!r}; epsilon and v_prediction can be trained")
    if weights is not None:
        weight = weight * weights
    return (weight * (prediction.float() - target.float()).square().flatten(1).mean(1)).mean()
