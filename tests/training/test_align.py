import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.align import align, load_parts
from altdiffusion_clip.training.conditioning import Conditioning
from altdiffusion_clip.training.configs import AlignConfig
from altdiffusion_clip.training.data.arrays import Ragged, RaggedWriter
from altdiffusion_clip.training.diffusion import Denoiser, check_scheduler
from altdiffusion_clip.training.estimate import Estimate
from altdiffusion_clip.training.metrics import read_metrics
from altdiffusion_clip.training.models import load_altclip, write_altclip
from tests.small_models import prompts, small_encoder
from tests.training.worlds import PIPELINE, write_pictures, write_teacher


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


class TestConditioning:
    @torch.no_grad()
    def test_one_row_of_padding_equals_77_rows_in_the_unet(self) -> None:
        encoder, unet = small_encoder("m9"), small_unet()
        ids, mask = prompts([4, 31, 17, 2])
        states, multiplicity = Conditioning(encoder, 1)(ids[:, :31], mask[:, :31])
        assert states.shape[1] == 32
        assert multiplicity is not None
        latents, steps = torch.randn(4, 4, 8, 8), torch.tensor([1, 300, 700, 999])
        whole = unet(latents, steps, encoder(ids, attention_mask=mask).projection_state).sample
        short = unet(latents, steps, states, encoder_attention_mask=multiplicity).sample
        torch.testing.assert_close(short, whole, atol=1e-3, rtol=0)
        wrong = unet(latents, steps, states, encoder_attention_mask=(multiplicity > 0).float()).sample
        assert (wrong - whole).abs().max() > 10 * (short - whole).abs().max()

    @torch.no_grad()
    @pytest.mark.parametrize("lengths", [[4, 31], [3], [76, 77]])
    def test_more_rows_than_are_needed_change_nothing(self, lengths: list[int]) -> None:
        encoder, unet = small_encoder("m9"), small_unet()
        ids, mask = prompts(lengths)
        latents, steps = torch.randn(len(lengths), 4, 8, 8), torch.tensor([500] * len(lengths))
        drawn = []
        for is_fixed in (False, True):
            states, counts = Conditioning(encoder, 1, is_fixed)(ids, mask)
            drawn.append(unet(latents, steps, states, encoder_attention_mask=counts).sample)
        assert states.shape[1] == 77
        torch.testing.assert_close(*drawn, atol=1e-5, rtol=0)

    @torch.no_grad()
    @pytest.mark.parametrize("lengths", [[4, 31, 17, 2], [77, 3], [76, 77]])
    def test_what_is_kept_is_what_is_computed(self, lengths: list[int], tmp_path: Path) -> None:
        conditioning = Conditioning(small_encoder("m9"), 1)
        ids, mask = prompts(lengths)
        with RaggedWriter(tmp_path / "tokens", "int32") as writer:
            for row, length in zip(ids.tolist(), lengths, strict=True):
                writer.add(row[:length])
        tokens = Ragged(tmp_path / "tokens")
        conditioning.write(tokens, range(len(tokens)), tmp_path / "states", batch_size=3)
        states, counts = conditioning.read(Ragged(tmp_path / "states"), list(range(len(lengths))))
        expected, expected_counts = conditioning(ids, mask)
        assert counts is not None
        assert expected_counts is not None
        torch.testing.assert_close(counts, expected_counts)
        for row, length in enumerate(lengths):
            rows = min(length + 1, 77)
            torch.testing.assert_close(states[row, :rows], expected[row, :rows], atol=3e-3, rtol=0)

    def test_a_clip_gives_all_its_rows(self, tmp_path: Path) -> None:
        from altdiffusion_clip.training.models import load_teacher_text

        teacher, tokenizer = load_teacher_text(str(write_teacher(tmp_path / "teacher")))
        encoded = tokenizer(["a cat", "dog"], padding=True, return_tensors="pt")
        states, mask = Conditioning(teacher, tokenizer.pad_token_id)(encoded.input_ids, encoded.attention_mask)
        assert mask is None
        whole = tokenizer(["a cat", "dog"], padding="max_length", max_length=77, return_tensors="pt").input_ids
        torch.testing.assert_close(states, teacher(whole).last_hidden_state)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_the_prediction_type(prediction_type: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type)
    denoiser = Denoiser(small_unet(), scheduler, Conditioning(small_encoder("m9"), 1))
    latents, noise, steps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([400, 900])
    states = torch.ones(2, 3, 24)
    with torch.no_grad():
        loss = denoiser(latents, noise, steps, states=states)
        prediction = denoiser.unet(scheduler.add_noise(latents, noise, steps), steps, states).sample
    target = noise if prediction_type == "epsilon" else scheduler.get_velocity(latents, noise, steps)
    # At these steps the signal-to-noise ratio is below gamma, so nothing is weighted down.
    assert (scheduler.alphas_cumprod[steps] / (1 - scheduler.alphas_cumprod[steps]) < 5).all()
    assert loss.item() == pytest.approx((prediction - target).square().mean().item(), rel=1e-5)


def test_a_scheduler_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="predicts 'sample'; epsilon and v_prediction"):
        check_scheduler(DDIMScheduler(prediction_type="sample"))


@pytest.fixture
def config(tmp_path: Path) -> AlignConfig:
    return AlignConfig(
        output=tmp_path / "run",
        model=str(PIPELINE),
        data=[write_pictures(tmp_path / "pictures")],
        resolution=32,
        steps=40,
        batch_size=8,
        learning_rate=3e-3,
        warmup_steps=5,
        log_every=1,
    )


def test_it_trains_and_every_pipeline_loads_the_result(config: AlignConfig) -> None:
    folder = align(replace(config, sample_prompts=["猫", "a dog"], validate_every=20))
    before, after = load_parts(str(PIPELINE)), load_parts(str(folder))
    for name, parameter in before.unet.named_parameters():
        assert not torch.equal(parameter, after.unet.get_parameter(name)), name
    for part in ("text_encoder", "vae"):
        ours, theirs = getattr(after, part).state_dict(), getattr(before, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part
    losses = [line["loss"] for line in read_metrics(config.output) if "loss" in line]
    assert sum(losses[-10:]) < sum(losses[:10])
    for step in (20, 40):
        with Image.open(config.output / "samples" / f"step-{step:06d}.png") as image:
            assert image.width == 2 * image.height
    for kind in (AltDiffusionPipeline, StableDiffusionPipeline):
        pipe = kind.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        assert pipe("猫", num_inference_steps=1, height=32, width=32).images[0].size == (32, 32)


def test_keys_and_values_come_first_and_alone(config: AlignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from altdiffusion_clip.checkpoints.merge import reads_text
    from altdiffusion_clip.training.loop import Stopped

    with pytest.raises(Stopped):  # after the first step of the first phase
        align(replace(config, keys_and_values_steps=3, stop_after_seconds=1e-9))
    saved = torch.load(config.output / "keys-and-values" / "checkpoint.pt", weights_only=True)["module"]
    assert saved
    assert all(reads_text(name) for name in saved)
    align(replace(config, keys_and_values_steps=3))
    assert {line["step"] for line in read_metrics(config.output / "keys-and-values")} == {1, 2, 3}
    whole = torch.load(config.output / "checkpoint.pt", weights_only=True)["module"]
    assert len(whole) > len(saved)


def test_keys_and_values_may_be_all_that_is_trained(config: AlignConfig) -> None:
    from altdiffusion_clip.checkpoints.merge import reads_text

    folder = Path(str(align(replace(config, keys_and_values_steps=3, steps=0))))
    before, after = (UNet2DConditionModel.from_pretrained(f, subfolder="unet") for f in (config.model, folder))
    for (name, was), now in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(was, now) != reads_text(name), name
    with pytest.raises(UserError, match="steps must be at least 1, not 0"):
        replace(config, steps=0)


def test_kept_text_states_teach_the_same(config: AlignConfig, tmp_path: Path) -> None:
    align(replace(config, steps=6))
    kept = replace(config, steps=6, output=tmp_path / "kept", cache_text_states=True)
    align(kept)
    losses = [torch.tensor([line["loss"] for line in read_metrics(c.output)]) for c in (config, kept)]
    torch.testing.assert_close(*losses, atol=2e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_a_compiled_unet_learns_the_same(config: AlignConfig, tmp_path: Path, cached: bool) -> None:
    unet = UNet2DConditionModel.from_config(
        {
            **UNet2DConditionModel.load_config(PIPELINE, subfolder="unet"),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        }
    )
    shutil.copytree(PIPELINE, tmp_path / "model", ignore=shutil.ignore_patterns("unet"))
    unet.save_pretrained(tmp_path / "model" / "unet")
    plain = replace(
        config,
        model=str(tmp_path / "model"),
        steps=3,
        resolution=64,
        sample_prompts=["猫"],
        cache_text_states=cached,
    )
    folder = Path(str(align(plain)))
    compiled = replace(plain, output=tmp_path / "compiled", compile=True)
    align(compiled)
    losses = [torch.tensor([line["loss"] for line in read_metrics(c.output)]) for c in (plain, compiled)]
    torch.testing.assert_close(*losses, atol=2e-3, rtol=0)
    weights = [load_parts(str(c.output / folder.name)).unet.state_dict() for c in (plain, compiled)]
    assert weights[0].keys() == weights[1].keys(), "they load as any others"


def test_a_unet_that_is_compiled_wrongly_is_refused(config: AlignConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_wrongly(unet: UNet2DConditionModel, **options: object) -> None:
        def differently(*args: object, **kwargs: object) -> object:
            output = unet._call_impl(*args, **kwargs)
            eager = torch._dynamo.eval_frame._stance.stance == "force_eager"
            return output if eager else type(output)(sample=output.sample * 2)

        unet._compiled_call_impl = differently

    monkeypatch.setattr(UNet2DConditionModel, "compile", compile_wrongly)
    with pytest.raises(UserError, match="since its gradient differs; omit --compile"):
        align(replace(config, compile=True))


def test_the_result_states_how_it_is_drawn_as_its_model_did(config: AlignConfig, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(config.model, model)
    (model / "generation_config.json").write_text('{"guidance_scale": 2.0, "num_inference_steps": 12}')
    folder = align(replace(config, steps=1, model=str(model)))
    pipe = AltDiffusionPipeline.from_pretrained(folder)
    assert pipe.generation_config == {"guidance_scale": 2.0, "num_inference_steps": 12}


def test_another_text_encoder_brings_its_scorer(config: AlignConfig, published: Path) -> None:
    folder = Path(str(align(replace(config, steps=1, text_encoder=str(published / "alt-clip-m9-tiny")))))
    assert len(AltCLIPScorer.from_pipeline(AltDiffusionPipeline.from_pretrained(folder)).encode_texts(["猫"])) == 1


@pytest.mark.parametrize("kind", ["a pipeline with its scorer", "an AltCLIP with its text encoder"])
def test_another_text_encoder_of_m18_brings_its_second_projection(kind: str, tmp_path: Path) -> None:
    name = "emoji-m18"
    if kind.startswith("an AltCLIP"):
        name = str(tmp_path / "stage 2")
        write_altclip(load_altclip("emoji-m18")[0], Path(name))
    parts = load_parts("emoji-m18", name)
    assert parts.scorer is not None
    own = load_parts("emoji-m18").text_encoder
    ids = torch.tensor([[0, 5, 6, 2]])
    assert torch.equal(parts.text_encoder(ids).projection_state, own(ids).projection_state)


def test_captions_are_dropped_for_guidance(config: AlignConfig) -> None:
    from altdiffusion_clip.training.accelerators import new_accelerator
    from altdiffusion_clip.training.align import new_source, prepare_pictures
    from altdiffusion_clip.training.diffusion import EMPTY

    parts, accelerator = load_parts(config.model), new_accelerator(config)
    pictures = prepare_pictures(config.data, config, parts, accelerator)
    conditioning = Conditioning(parts.text_encoder, parts.tokenizer.pad_token_id)
    many = replace(config, batch_size=2000)
    source = new_source(many, parts, pictures, conditioning, accelerator)
    drawn = source.draw(torch.Generator().manual_seed(0))
    dropped = drawn["texts"] == EMPTY
    assert 0.07 < dropped.float().mean() < 0.13
    one = {key: value[dropped][:1] for key, value in drawn.items()}
    assert source.load(one)["input_ids"].tolist() == [parts.tokenizer("").input_ids]
    timesteps = drawn["timesteps"].sort().values
    assert torch.equal(timesteps // 100, torch.arange(10).repeat_interleave(200)), "spread over the schedule"


def test_logit_normal_timesteps_are_mostly_in_the_middle_and_sometimes_at_the_ends() -> None:
    from altdiffusion_clip.training.diffusion import noise_of

    drawn = noise_of((1,), 20_000, 1000, torch.Generator().manual_seed(0), "logit-normal")["timesteps"]
    assert 0 <= drawn.min() < 5
    assert 995 < drawn.max() <= 999
    middle = ((drawn > 250) & (drawn < 750)).float().mean()
    # Of a normal variable between -log 3 and log 3, and a tenth of them uniform.
    assert middle == pytest.approx(0.9 * 0.728 + 0.1 * 0.5, abs=0.01)


def test_a_logit_mean_moves_the_median_of_the_timesteps() -> None:
    from altdiffusion_clip.training.diffusion import noise_of

    drawn = noise_of((1,), 20_000, 1000, torch.Generator().manual_seed(0), "logit-normal", logit_mean=1.0)
    # sigmoid(1) is 0.731, and a tenth is uniform.
    later = (drawn["timesteps"] > 731).float().mean()
    assert later == pytest.approx(0.9 * 0.5 + 0.1 * 0.269, abs=0.01)


def test_a_share_of_the_examples_is_pure_noise() -> None:
    from altdiffusion_clip.training.diffusion import noise_of

    drawn = noise_of((1,), 20_000, 1000, torch.Generator().manual_seed(0), "logit-normal", pure_noise=0.4)["timesteps"]
    assert (drawn == 999).float().mean() == pytest.approx(0.4, abs=0.01)
    assert (drawn < 500).float().mean() == pytest.approx(0.3, abs=0.01)


class TestMistakes:
    def test_a_text_encoder_of_another_base(self, config: AlignConfig, published: Path) -> None:
        with pytest.raises(UserError, match="choose those of one base"):
            align(replace(config, text_encoder=str(published / "alt-clip-m18-tiny")))

    def test_a_resolution_that_does_not_fit(self, config: AlignConfig) -> None:
        with pytest.raises(UserError, match="resolution must be a multiple of"):
            align(replace(config, resolution=33))

    def test_a_model_that_is_not_there(self, config: AlignConfig) -> None:
        with pytest.raises(UserError, match="there is no /nowhere/model, which is to be the model's UNet"):
            align(replace(config, model="/nowhere/model"))

    def test_a_single_file_is_to_be_converted_first(self, config: AlignConfig, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").write_bytes(b"x")
        with pytest.raises(UserError, match=r"is a single file; make a folder of it first: altdiffusion convert"):
            align(replace(config, model=str(tmp_path / "a.safetensors")))

    def test_a_dry_run(self, config: AlignConfig) -> None:
        counted = align(replace(config, dry_run=True, ema_decay=0.9))
        assert isinstance(counted, Estimate)
        assert counted.examples == 32
        assert counted.memory_gb == pytest.approx(20 * counted.trained_parameters / 1e9, abs=1e-3)
