"""Small text encoders in the published shapes, and prompts for them."""

import torch

from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation

SHAPES = {
    "m2": {"project_dim": 24},
    "m9": {"project_dim": 24, "has_pre_LN": True},
    "m18": {"project_dim": 40, "has_pre_transformation": True},
}
"""What tells the published text encoders apart, at a small size."""


def small_config(shape: str, **changes: object) -> RobertaSeriesConfig:
    small = {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 90,
    }
    return RobertaSeriesConfig(**{**small, **SHAPES[shape], **changes})


def small_encoder(shape: str, seed: int = 0, **changes: object) -> RobertaSeriesModelWithTransformation:
    torch.manual_seed(seed)
    model = RobertaSeriesModelWithTransformation(small_config(shape, **changes))
    with torch.no_grad():  # away from the initialisation, where biases are 0 and LayerNorms are identities
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def prompts(lengths: list[int], width: int = 77, pad: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of prompts with so many tokens, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), pad)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(4, 120, (length,), generator=generator)
        if length:
            ids[row, 0] = 0
        if length > 1:
            ids[row, length - 1] = 2
    return ids, (ids != pad).long()
