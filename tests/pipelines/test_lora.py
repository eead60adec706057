import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionPipeline


def load(published: Path, m: str) -> AltDiffusionPipeline:
    pipe = AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: AltDiffusionPipeline, **more: object) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np"}
    return pipe("雪山下的红色小屋", generator=generator, **settings, **more).images[0]


@pytest.fixture(scope="module", params=["m9", "m18"])
def m(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def trained(m: str, published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with a LoRA on XLM-R's query, key and value and on the UNet, and what it draws."""
    torch.manual_seed(0)
    pipe = load(published, m)
    on_text = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "key", "value"], init_lora_weights=False)
    pipe.text_encoder.add_adapter(on_text)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    folder = tmp_path_factory.mktemp("lora")
    AltDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
        **_collate_lora_metadata({"unet": pipe.unet, "text_encoder": pipe.text_encoder}),
    )
    return folder, draw(pipe)


def test_loaded_is_saved(m: str, trained, published: Path) -> None:
    folder, expected = trained
    pipe = load(published, m)
    base = draw(pipe)
    assert np.abs(expected - base).max() > 1e-3
    pipe.load_lora_weights(folder)
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-5)
    np.testing.assert_allclose(draw(pipe, cross_attention_kwargs={"scale": 0.0}), base, atol=1e-5)
    pipe.fuse_lora()
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-4)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    np.testing.assert_allclose(draw(pipe), base, atol=1e-4)


def test_adapters_are_named_weighted_and_switched(m: str, trained, published: Path) -> None:
    folder, expected = trained
    pipe = load(published, m)
    base = draw(pipe)
    pipe.load_lora_weights(folder, adapter_name="style")
    assert pipe.get_list_adapters() == {"unet": ["style"], "text_encoder": ["style"]}
    pipe.set_adapters("style", 0.5)
    half = draw(pipe)
    assert np.abs(half - base).max() > 1e-4
    assert np.abs(half - expected).max() > 1e-4
    pipe.disable_lora()
    np.testing.assert_allclose(draw(pipe), base, atol=1e-5)
    pipe.enable_lora()
    pipe.set_adapters("style", 1.0)
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-5)


def test_without_metadata_alpha_is_the_rank(m: str, published: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    pipe = load(published, m)
    pattern = {"encoder.layer.0.attention.self.query": 2}
    config = LoraConfig(
        r=4,
        lora_alpha=4,
        rank_pattern=pattern,
        alpha_pattern=pattern,
        target_modules=["query"],
        init_lora_weights=False,
    )
    pipe.text_encoder.add_adapter(config)
    layers = get_peft_model_state_dict(pipe.text_encoder)
    AltDiffusionPipeline.save_lora_weights(tmp_path, text_encoder_lora_layers=layers)
    other = load(published, m)
    other.load_lora_weights(tmp_path)
    np.testing.assert_allclose(draw(other), draw(pipe), atol=1e-5)


def test_every_pipeline_has_it(m: str, trained, published: Path) -> None:
    pipe = AltDiffusionImg2ImgPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny")
    pipe.load_lora_weights(trained[0])
    assert set(pipe.get_list_adapters()) == {"unet", "text_encoder"}


def test_a_hot_swap_is_refused(m: str, trained, published: Path) -> None:
    with pytest.raises(ValueError, match="hotswap"):
        load(published, m).load_lora_into_text_encoder(
            {"text_encoder.roberta.x.lora_B.weight": torch.ones(2, 2)}, None, None, hotswap=True
        )


@pytest.fixture(scope="module")
def foreign() -> dict[str, dict[str, torch.Tensor]]:
    """LoRAs as people have them: of kohya's and of old versions of diffusers, on our UNet and on CLIP."""
    pipe = load(Path(__file__).parents[1] / "fixtures" / "published", "m9")
    generator = torch.Generator().manual_seed(0)
    kohya, old = {}, {}
    for name, layer in pipe.unet.named_modules():
        if name.endswith(("attn1.to_q", "attn1.to_v")):
            down = torch.randn(4, layer.in_features, generator=generator)
            up = torch.randn(layer.out_features, 4, generator=generator)
            key = "lora_unet_" + name.replace(".", "_")
            kohya |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(4.0)}
            attention, _, projection = name.rpartition(".")
            key = f"{attention}.processor.{projection}_lora"
            old |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    key = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    text = {
        f"{key}.lora_down.weight": torch.randn(4, 768),
        f"{key}.lora_up.weight": torch.randn(768, 4),
        f"{key}.alpha": torch.tensor(4.0),
    }
    return {"kohya": kohya, "text": text, "old": old, "old, named": {f"unet.{k}": v for k, v in old.items()}}


@pytest.mark.parametrize("kind", ["kohya", "old", "old, named"])
def test_the_formats_that_people_have(kind: str, foreign, published: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = load(published, "m9")
    pipe.load_lora_weights(foreign["kohya"])
    expected = draw(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights(foreign[kind])
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-5)
    assert "left out" not in caplog.text


def test_what_is_for_clip_is_left_out_and_named(foreign, published: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = load(published, "m9")
    pipe.load_lora_weights(foreign["kohya"])
    expected = draw(pipe)
    pipe.unload_lora_weights()
    pipe.load_lora_weights({**foreign["kohya"], **foreign["text"]})
    np.testing.assert_allclose(draw(pipe), expected, atol=1e-5)
    assert "2 of the LoRA's" in caplog.text
    assert "text_encoder.text_model.encoder.layers.0" in caplog.text


def test_a_lora_that_does_not_fit_changes_nothing(foreign, published: Path) -> None:
    pipe = load(published, "m9")
    base = draw(pipe)
    with pytest.raises(ValueError, match="nothing in this LoRA fits"):
        pipe.load_lora_weights(foreign["text"])
    last = list(foreign["kohya"])[-3]
    misshapen = {**foreign["kohya"], last: torch.randn(4, 7)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        pipe.load_lora_weights(misshapen)
    assert pipe.get_list_adapters() == {}
    np.testing.assert_array_equal(draw(pipe), base)
    pipe.load_lora_weights(foreign["kohya"], adapter_name="good")
    styled = draw(pipe)
    with pytest.raises(RuntimeError):
        pipe.load_lora_weights(misshapen, adapter_name="bad")
    assert pipe.get_list_adapters() == {"unet": ["good"]}
    np.testing.assert_allclose(draw(pipe), styled, atol=1e-6)


def test_both_parts_have_one_name(m: str, trained, foreign, published: Path) -> None:
    pipe = load(published, m)
    if m == "m9":
        pipe.load_lora_weights(foreign["kohya"])
        pipe.load_lora_weights(trained[0])
        assert pipe.get_list_adapters() == {"unet": ["default_0", "default_1"], "text_encoder": ["default_1"]}
    else:
        pipe.load_lora_weights(trained[0])
        assert pipe.get_list_adapters() == {"unet": ["default_0"], "text_encoder": ["default_0"]}


def test_a_lora_after_optimize_works(trained, m: str, published: Path) -> None:
    pipe = load(published, m)
    base = draw(pipe)
    pipe.optimize(half=True)
    pipe.load_lora_weights(trained[0])
    assert np.abs(draw(pipe) - base).max() > 0.02
    pipe._optimizations.undo()
    np.testing.assert_allclose(draw(pipe), trained[1], atol=1e-2)
    pipe.unload_lora_weights()
    np.testing.assert_allclose(draw(pipe), base, atol=1e-5)


def chessboard(seed: int) -> np.ndarray:
    """What emoji-m18 does not know: four by four black and white squares on a coloured background, (64, 64, 3)."""
    colours = [(255, 212, 59), (77, 171, 247), (255, 135, 135), (105, 219, 124)]
    picture = np.empty((64, 64, 3), np.uint8)
    picture[:] = colours[seed % len(colours)]
    squares = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((12, 12))) * 255
    picture[8:56, 8:56] = squares[..., None]
    return picture


def likeness(picture: np.ndarray) -> float:
    """Correlation of a picture's brightness with the squares, -1 to 1; their colours may be exchanged."""
    ours, squares = (p[8:56, 8:56].astype(float).mean(-1) for p in (picture, chessboard(0)))
    return abs(float(np.corrcoef(ours.ravel(), squares.ravel())[0, 1]))


@pytest.mark.full
def test_a_lora_trained_on_a_new_concept_draws_it(tmp_path: Path) -> None:
    from PIL import Image

    from altdiffusion_clip.training.configs import LoraConfig as TrainingConfig
    from altdiffusion_clip.training.lora import train_lora

    said = {"zh": ["棋盘", "黄色背景上的棋盘"], "en": ["a chessboard"]}
    with (tmp_path / "captions.jsonl").open("w", encoding="utf-8") as file:
        for seed in range(4):
            Image.fromarray(chessboard(seed)).save(tmp_path / f"{seed}.png")
            file.write(json.dumps({"image": f"{seed}.png", "captions": said}, ensure_ascii=False) + "\n")

    def drawn(pipe: AltDiffusionPipeline) -> list[float]:
        pipe.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        settings = {"num_inference_steps": 12, "guidance_scale": 2.0, "generator": generators, "output_type": "np"}
        return [likeness(image) for image in pipe("棋盘", num_images_per_prompt=3, **settings).images]

    pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
    before = drawn(pipe)
    config = TrainingConfig(
        output=tmp_path / "run",
        model="emoji-m18",
        data=[tmp_path],
        rank=16,
        targets=["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"],
        steps=150,
        batch_size=8,
        learning_rate=2e-3,
        warmup_steps=10,
        weight_decay=0.0,
    )
    pipe.load_lora_weights(str(train_lora(config)))
    after = drawn(pipe)
    assert max(before) < 0.3
    assert min(after) > 0.8
