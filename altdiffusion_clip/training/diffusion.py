"""What all stages that train a denoiser share: noisy latents in, the loss of the UNet's prediction out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import tqdm

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import atomic_folder
from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.data.arrays import Ragged, RaggedParts, alone, fill_rows, path_for, prepared
from altdiffusion_clip.training.data.image_text import Captioned, CaptionedPictures, leave_out_broken, read_pixels
from altdiffusion_clip.training.data.pixels import signed
from altdiffusion_clip.training.loop import Tensors
from altdiffusion_clip.training.losses import diffusion_loss
from altdiffusion_clip.training.machines import crew_of, is_main

EMPTY = -1
"""Stands for the empty caption, which guidance steers away from."""

STILL_UNIFORM = 0.1
FEWEST_CAPTIONS, MOST_CAPTIONS = 16, 65_536
"""Captions per part of precomputed states; there are about 64 parts."""


class Denoiser(nn.Module):
    """A UNet with the loss of its prediction.

    Args:
        unet: to train.
        scheduler: its noise schedule, predicting epsilon or v.
        conditioning: for captions that come as tokens.
        train_text_encoder: also train the text encoder's parameters that require gradients.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler | DDIMScheduler,
        conditioning: Conditioning,
        train_text_encoder: bool = False,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = conditioning.text_encoder if train_text_encoder else None
        # In a list, so that a frozen encoder is not wrapped, sharded or saved.
        self._outside = [conditioning]
        self._scheduler = scheduler
        self.prediction_type = scheduler.config.prediction_type

    def forward(
        self,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        weights: Tensor | None = None,
        states: Tensor | None = None,
        states_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            latents: float (batch, channels, height, width), scaled to unit variance.
            noise: same shape as `latents`.
            timesteps: int64 (batch,).
            weights: float (batch,), per example; 1 by default.
            states: float (batch, rows, dim), the conditioning, if it is precomputed.
            states_mask: float (batch, rows), from `Conditioning`.
            input_ids: int64 (batch, length), captions, if the conditioning is not precomputed.
            attention_mask: int64 (batch, length).
        """
        if states is None:
            assert input_ids is not None
            assert attention_mask is not None
            with torch.set_grad_enabled(self.text_encoder is not None):
                states, states_mask = self._outside[0](input_ids, attention_mask)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        target = noise
        if self.prediction_type == "v_prediction":
            target = self._scheduler.get_velocity(latents, noise, timesteps)
        prediction = self.unet(noisy, timesteps, states, encoder_attention_mask=states_mask).sample
        signal = self._scheduler.alphas_cumprod.to(latents.device)[timesteps]
        snr = signal / (1 - signal).clamp(min=1e-8)
        return diffusion_loss(prediction, target, snr, self.prediction_type, weights)


class LatentsOfCaptions:
    """Batches of latents with captions.

    Args:
        pictures: with captions.
        latents: float (pictures, channels, height, width), memory-mapped and scaled.
        batch_size: pictures per batch.
        timesteps: of the noise schedule.
        pad_token_id: of the tokenizer.
        empty: the tokens of the empty caption.
        caption_dropout: share of captions to replace by the empty one, for guidance.
        conditioning: to read `states` with.
        states: of every caption and, at the end, of the empty one; None to load tokens.
        timestep_sampling: as in `noise_of`.
        logit_mean: as in `noise_of`.
        pure_noise: as in `noise_of`.
    """

    def __init__(
        self,
        pictures: Captioned,
        latents: np.ndarray,
        batch_size: int,
        timesteps: int,
        pad_token_id: int,
        empty: list[int],
        caption_dropout: float = 0.1,
        conditioning: Conditioning | None = None,
        states: RaggedParts | None = None,
        timestep_sampling: str = "uniform",
        logit_mean: float = 0.0,
        pure_noise: float = 0.0,
    ) -> None:
        self._when = (timestep_sampling, logit_mean, pure_noise)
        self._pictures, self._latents, self._count, self._timesteps = pictures, latents, batch_size, timesteps
        self._pad, self._empty, self._dropout = pad_token_id, empty, caption_dropout
        self._conditioning, self._states = conditioning, states

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws pictures, captions, timesteps and noise."""
        count = self._count
        shown, said = self._pictures.draw(count, generator)
        said = torch.where(torch.rand(count, generator=generator) < self._dropout, EMPTY, said)
        return {
            "pictures": shown,
            "texts": said,
            **noise_of(self._latents.shape[1:], count, self._timesteps, generator, *self._when),
        }

    def load(self, drawn: Tensors) -> Tensors:
        """Loads latents, and states or tokens."""
        latents = torch.from_numpy(self._latents[drawn["pictures"].numpy()]).float()
        batch = {"latents": latents, "noise": drawn["noise"], "timesteps": drawn["timesteps"]}
        texts = drawn["texts"].tolist()
        if self._states is not None:
            assert self._conditioning is not None
            rows = [len(self._states) - 1 if text == EMPTY else text for text in texts]
            states, mask = self._conditioning.read(self._states, rows)
            return {**batch, "states": states, **({} if mask is None else {"states_mask": mask})}
        fixed = WINDOW if self._conditioning is not None and self._conditioning.is_fixed else 0
        ids, mask = pad_tokens([self._tokens(text) for text in texts], self._pad, fixed)
        return {**batch, "input_ids": ids, "attention_mask": mask}

    def _tokens(self, text: int) -> list[int]:
        return self._empty if text == EMPTY else self._pictures.tokens[text].tolist()


def noise_of(
    shape: tuple[int, ...],
    count: int,
    timesteps: int,
    generator: torch.Generator,
    sampling: str = "uniform",
    logit_mean: float = 0.0,
    pure_noise: float = 0.0,
) -> Tensors:
    """Draws noise and timesteps for a batch, one timestep from each of `count` equally likely slices of the schedule.

    Each timestep has the same distribution as if it were drawn alone, but the loss is less noisy.

    Args:
        shape: of one example's latents.
        count: number of examples.
        timesteps: number of timesteps in the schedule.
        generator: of the random numbers.
        sampling: "uniform", or "logit-normal" (arXiv 2403.03206), which favours the middle of the schedule. A share of
            `STILL_UNIFORM` stays uniform, because drawing starts at the very end.
        logit_mean: centre of the logit-normal distribution. 1 moves its median from the middle to 73% of the schedule.
        pure_noise: share of examples at the last timestep, where drawing begins. With a schedule that ends in pure
            noise, nothing but the caption says there what is where.
    """
    drawn = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    if sampling == "logit-normal":
        still = torch.rand(count, generator=generator) < STILL_UNIFORM
        drawn = torch.where(still, drawn, (torch.special.ndtri(drawn) + logit_mean).sigmoid())
    drawn = (drawn * timesteps).long().clamp(max=timesteps - 1)
    if pure_noise:
        drawn[torch.rand(count, generator=generator) < pure_noise] = timesteps - 1
    return {
        "timesteps": drawn[torch.randperm(count, generator=generator)],
        "noise": torch.randn(count, *shape, generator=generator),
    }


def pad_tokens(rows: list[list[int]], pad_token_id: int, least: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to the longest or to a given length, and their mask, int64 (rows, longest)."""
    longest = max(least, *(len(row) for row in rows))
    ids = torch.tensor([row + [pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def embed_latents(
    vae: AutoencoderKL, pictures: Captioned, accelerator: Accelerator | None = None, workers: int = 0
) -> np.ndarray:
    """The scaled latents of all pictures, computed once and memory-mapped: float16 (pictures, channels, height, width).

    Pictures that cannot be read have NaNs and are left out.
    """
    side = pictures.side // 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def compute(found: tuple[Tensor, Tensor]) -> Tensor:
        pixels, readable = (each.to(vae.device) for each in found)
        latents = vae.encode(signed(pixels).to(vae.dtype)).latent_dist.mode()
        return torch.where(readable[:, None, None, None], latents * vae.config.scaling_factor, torch.nan).half()

    shape = (vae.config.latent_channels, side, side)
    # In the folder of the pictures, which is recreated when they change.
    path = path_for(pictures.folder / "latents.bin", vae, pictures.is_shared)
    latents = fill_rows(
        path,
        len(pictures),
        shape,
        "float16",
        compute,
        read=lambda start, stop: read_pixels(pictures, torch.arange(start, stop)),
        workers=workers,
        chunk=32 if vae.device.type == "cpu" else 256,
        accelerator=accelerator,
        description="latents",
        is_shared=pictures.is_shared,
    )
    leave_out_broken(pictures, latents, accelerator)
    return latents


def embed_captions(
    conditioning: Conditioning,
    pictures: CaptionedPictures,
    empty: list[int],
    folder: Path,
    made_from: dict[str, Any],
    accelerator: Accelerator | None = None,
) -> RaggedParts:
    """The conditioning of every caption and, at the end, of the empty one, computed once and memory-mapped.

    It is computed in parts that all processes divide. A killed process loses only its current part.
    """
    tokens: Any = _WithEmpty(pictures.tokens, empty)
    folder = path_for(folder, conditioning.text_encoder, pictures.is_shared)
    size = min(max(len(tokens) // 64, FEWEST_CAPTIONS), MOST_CAPTIONS)
    parts = [
        (folder / "parts" / f"{start:09d}", range(start, min(len(tokens), start + size)))
        for start in range(0, len(tokens), size)
    ]
    crew = crew_of(accelerator)
    with alone(folder, lambda: all(part.exists() for part, _ in parts), pictures.is_shared, accelerator):
        if not pictures.is_shared:  # where the name of the folder says what it was made from
            prepared(folder, made_from, lambda into: (into / "parts").mkdir(), accelerator)
        mine = [(part, rows) for part, rows in parts[crew.rank :: crew.size] if not part.exists()]
        for part, rows in tqdm(mine, desc="text states", mininterval=5.0, disable=not is_main(accelerator)):
            with atomic_folder(part) as temporary:
                conditioning.write(tokens, rows, temporary / "states")
        crew.wait()
    return RaggedParts([Ragged(part / "states") for part, _ in parts])


class _WithEmpty:
    """The tokens of all captions, and at the end those of the empty one."""

    def __init__(self, tokens: Ragged, empty: list[int]) -> None:
        self._tokens, self._empty = tokens, empty

    def __len__(self) -> int:
        return len(self._tokens) + 1

    def padded(self, rows: range) -> tuple[Tensor, Tensor]:
        last = len(self._tokens)
        return pad_tokens([self._empty if row == last else self._tokens[row].tolist() for row in rows], 0)


def check_scheduler(scheduler: Any) -> None:
    """Rejects a schedule whose prediction type cannot be trained.

    Raises:
        UserError: the type is neither epsilon nor v.
    """
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"the model's scheduler predicts {kind!r}; epsilon and v_prediction can be trained")
