import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from altdiffusion_clip.training.align import LatentBatch, encode_states, train_align, v_loss
from altdiffusion_clip.training.loop import LoopConfig
from tests.conftest import prompts, small_encoder


def small_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


@torch.no_grad()
def test_one_row_of_padding_equals_77_rows_in_the_unet() -> None:
    encoder, unet = small_encoder("m9"), small_unet()
    ids, mask = prompts([4, 31, 17, 2])
    states, multiplicity = encode_states(encoder, ids[:, :31], mask[:, :31]).batch(torch.arange(4))
    assert states.shape[1] == 32
    latents, steps = torch.randn(4, 4, 8, 8), torch.tensor([1, 300, 700, 999])
    whole = unet(latents, steps, encoder(ids, attention_mask=mask).projection_state).sample
    short = unet(latents, steps, states, encoder_attention_mask=multiplicity).sample
    torch.testing.assert_close(short, whole, atol=5e-3, rtol=0)  # the states are kept in half precision
    wrong = unet(latents, steps, states, encoder_attention_mask=(multiplicity > 0).float()).sample
    assert (wrong - whole).abs().max() > 10 * (short - whole).abs().max()


def test_the_weight_of_the_loss() -> None:
    prediction, target = torch.zeros(3, 2), torch.ones(3, 2)
    assert v_loss(prediction, target, torch.zeros(3)) == 1, "pure noise counts in full"
    assert v_loss(prediction, target, torch.tensor([4.0, 4.0, 4.0])) == 1
    assert v_loss(prediction, target, torch.tensor([59.0, 59.0, 59.0])) == pytest.approx(6 / 60)


def test_it_trains(tmp_path) -> None:
    unet, scheduler = small_unet(), DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    target = torch.randn(1, 4, 8, 8)
    losses = []

    def batch(generator: torch.Generator) -> LatentBatch:
        states = torch.ones(4, 3, 24)
        return LatentBatch(target.expand(4, -1, -1, -1), states, torch.ones(4, 3))

    config = LoopConfig(steps=60, learning_rate=3e-3, warmup_steps=5)
    before = [p.clone() for p in unet.parameters()]
    train_align(unet, scheduler, batch, config, tmp_path / "unet.pt")
    assert any(not torch.equal(a, b) for a, b in zip(before, unet.parameters(), strict=True))
    with torch.no_grad():
        for model in (small_unet(), unet):
            noise, steps = torch.randn(16, 4, 8, 8), torch.full((16,), 900)
            clean = target.expand(16, -1, -1, -1)
            noisy = scheduler.add_noise(clean, noise, steps)
            velocity = scheduler.get_velocity(clean, noise, steps)
            losses.append((model(noisy, steps, torch.ones(16, 3, 24)).sample - velocity).square().mean().item())
    assert losses[1] < 0.7 * losses[0]


def test_a_scheduler_of_another_kind_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="trains v_prediction"):
        train_align(small_unet(), DDIMScheduler(), lambda g: None, LoopConfig(1, 1.0), tmp_path / "a")  # type: ignore[arg-type, return-value]
