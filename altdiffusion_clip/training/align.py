"""Teaching a UNet to draw from the student's conditioning, the text encoder frozen.

AltDiffusion (arXiv 2308.09991); v-prediction (arXiv 2202.00512); zero terminal SNR (arXiv 2305.08891);
min-SNR weighting (arXiv 2303.09556). Latents and text states are computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.prompts import WINDOW
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.loop import LoopConfig, device_of, optimise, to_device

SNR_GAMMA = 5.0


@dataclass(frozen=True)
class TextStates:
    """Conditioning of many prompts, each kept to its tokens and one row of padding.

    Attributes:
        states: float (prompts, longest + 1, project_dim).
        lengths: int64 (prompts,), tokens of each.
    """

    states: Tensor
    lengths: Tensor

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States and attention mask for diffusers' UNet, equal in effect to all 77 rows.

        Padding rows are equal, so one row with log n added to its logit stands for n of them. The UNet turns
        a mask m into the bias (m - 1) · 10000, hence the mask of a little more than 1.

        Returns:
            States, float (rows, length, project_dim), and mask, float (rows, length).
        """
        lengths = self.lengths[rows]
        columns = int(lengths.max()) + 1
        position = torch.arange(columns)
        multiplicity = (WINDOW - lengths[:, None]).clamp(min=1).log() / 10000
        is_last = position[None, :] == lengths[:, None]
        mask = torch.where(is_last, 1 + multiplicity, (position[None, :] < lengths[:, None]).float())
        return self.states[rows, :columns].float(), mask


@torch.no_grad()
def encode_states(
    text_encoder: RobertaSeriesModelWithTransformation, input_ids: Tensor, attention_mask: Tensor
) -> TextStates:
    """Encodes prompts once for all epochs.

    Args:
        text_encoder: frozen.
        input_ids: int64 (prompts, length), padded on the right, shorter than 77 tokens.
        attention_mask: int64 (prompts, length).
    """
    device = device_of(text_encoder)
    ids = F.pad(input_ids, (0, 1), value=text_encoder.config.pad_token_id)
    mask = F.pad(attention_mask, (0, 1), value=0)
    rows = [
        text_encoder(some_ids.to(device), attention_mask=some_mask.to(device)).projection_state.half().cpu()
        for some_ids, some_mask in zip(ids.split(256), mask.split(256), strict=True)
    ]
    return TextStates(torch.cat(rows), attention_mask.sum(1))


@dataclass(frozen=True)
class LatentBatch:
    """Latents and what they are drawn from.

    Attributes:
        latents: float (batch, channels, height, width), scaled to unit variance.
        states: float (batch, length, project_dim).
        mask: float (batch, length), as `TextStates.batch` gives it.
    """

    latents: Tensor
    states: Tensor
    mask: Tensor


def v_loss(prediction: Tensor, target: Tensor, snr: Tensor) -> Tensor:
    """Squared error of v, weighted so that the loss on the picture grows with the SNR only up to `SNR_GAMMA`.

    Args:
        prediction: float (batch, ...).
        target: like `prediction`.
        snr: float (batch,), the signal-to-noise ratio of each example; 0 is allowed and has weight 1.
    """
    weight = (snr.clamp(max=SNR_GAMMA) + 1) / (snr + 1)
    return (weight * (prediction - target).square().flatten(1).mean(1)).mean()


def train_align(
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    batch: Callable[[torch.Generator], LatentBatch],
    config: LoopConfig,
    checkpoint: Path,
) -> UNet2DConditionModel:
    """Trains the UNet on v-prediction.

    Args:
        unet: trained in place.
        scheduler: its noise schedule, with `prediction_type="v_prediction"`.
        batch: draws latents and their captions; a tenth of the captions empty, for guidance.
        config: of the loop.
        checkpoint: file to save to and to resume from.

    Returns:
        The averaged UNet if the config has an EMA, else the same.
    """
    if scheduler.config.prediction_type != "v_prediction":
        raise ValueError(f"the scheduler predicts {scheduler.config.prediction_type}; this stage trains v_prediction")
    signal = scheduler.alphas_cumprod.to(device_of(unet))

    def loss_at(generator: torch.Generator) -> Tensor:
        drawn = to_device(batch(generator), device_of(unet))
        noise = torch.randn(drawn.latents.shape, generator=generator).to(drawn.latents.device)
        # One timestep from each of `batch` equal slices: the same distribution with less noise in the loss.
        count = len(drawn.latents)
        uniform = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        timesteps = (uniform * len(signal)).long()[torch.randperm(count, generator=generator)].to(noise.device)
        noisy = scheduler.add_noise(drawn.latents, noise, timesteps)
        target = scheduler.get_velocity(drawn.latents, noise, timesteps)
        prediction = unet(noisy, timesteps, drawn.states, encoder_attention_mask=drawn.mask).sample
        return v_loss(prediction, target, signal[timesteps] / (1 - signal[timesteps]).clamp(min=1e-8))

    return optimise(unet, loss_at, config, checkpoint, "align")
