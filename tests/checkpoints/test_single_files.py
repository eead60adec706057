"""Single files in the LDM layout, through every loader, against the reference classes on the same tensors."""

import json
import logging
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as reference
from PIL import Image
from safetensors.torch import save_file
from transformers import AltCLIPConfig, AltCLIPModel, XLMRobertaTokenizer

import altdiffusion_clip
from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.convert import convert
from altdiffusion_clip.checkpoints.layouts import Layout, open_checkpoint
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.errors import CheckpointError
from tests.checkpoints import replicas
from tests.conftest import in_full

TOLERANCE = 1e-5
KINDS = ("webui", "flagai")


@pytest.fixture(scope="module", params=["m18", *in_full("m9")])
def m(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def configs(m: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replicas.config_folder(m, tmp_path_factory.mktemp(m) / "configs")


@pytest.fixture(scope="module")
def files(m: str, configs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp(f"{m}-files")
    webui = replicas.ldm_tensors(m, configs)
    flagai = replicas.ldm_tensors(m, configs, flagai=True)
    return {
        "webui": replicas.write(webui, folder / "ad.safetensors"),
        "webui.ckpt": replicas.write(webui, folder / "ad.ckpt"),
        "webui.fp16": replicas.write(webui, folder / "ad-fp16.safetensors", torch.float16),
        "webui.ema": replicas.write(replicas.ldm_tensors(m, configs, ema=True), folder / "ad-ema.ckpt"),
        "flagai": replicas.write(flagai, folder / "model.safetensors"),
        "flagai.ckpt": replicas.write(flagai, folder / "model.ckpt"),
    }


def draw(pipe: StableDiffusionPipeline, **more: object) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "np", "guidance_scale": 5.0}
    generator = torch.Generator().manual_seed(0)
    return pipe("雪山下的红色小屋", negative_prompt="模糊", generator=generator, **settings, **more).images[0]


def reference_pipeline(file: Path, configs: Path, m: str, extract_ema: bool = False) -> StableDiffusionPipeline:
    """The same tensors in diffusers' classes, by diffusers' own names for them."""
    models = []
    for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        more = {"extract_ema": True} if extract_ema and part == "unet" else {}
        models.append(kind.from_single_file(str(file), config=str(configs), subfolder=part, **more))
    config = reference.RobertaSeriesConfig.from_pretrained(configs / "text_encoder")
    text_encoder = reference.RobertaSeriesModelWithTransformation(config).eval()
    missing, _ = text_encoder.load_state_dict(replicas.text_encoder_tensors(m), strict=False)
    assert not [name for name in missing if "pooler" not in name]
    tokenizer = XLMRobertaTokenizer.from_pretrained(configs / "tokenizer")
    scheduler = PNDMScheduler.from_pretrained(configs / "scheduler")
    return StableDiffusionPipeline(models[1], text_encoder, tokenizer, models[0], scheduler, None, None, None, False)


class TestPipelines:
    @pytest.mark.parametrize("kind", [*KINDS, "webui.ckpt", "flagai.ckpt"])
    def test_pictures_are_those_of_the_reference_classes(self, kind: str, m: str, configs, files) -> None:
        expected = draw(reference_pipeline(files["webui"], configs, m))
        actual = draw(AltDiffusionPipeline.from_single_file(str(files[kind]), config=str(configs)))
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_pipeline_loads_them(self, kind: str, configs: Path, files: dict[str, Path]) -> None:
        file, config = str(files[kind]), str(configs)
        expected = draw(AltDiffusionPipeline.from_single_file(file, config=config))
        for pipe in (
            StableDiffusionPipeline.from_single_file(file, config=config),
            AltDiffusionPipeline.from_pretrained(file, config=config),
        ):
            np.testing.assert_allclose(draw(pipe), expected, atol=TOLERANCE)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("task", ["Img2Img", "Inpaint", "ControlNet"])
    def test_pipelines_for_other_tasks(self, task: str, kind: str, configs: Path, files: dict[str, Path]) -> None:
        file, config = str(files[kind]), str(configs)
        arguments: dict[str, object] = {"image": Image.new("RGB", (64, 64), "red")}
        if task != "Img2Img":
            arguments |= {"height": 64, "width": 64}
        components = {}
        if task == "Inpaint":
            arguments["mask_image"] = Image.new("L", (64, 64), 255)
        if task == "ControlNet":
            unet = UNet2DConditionModel.from_single_file(file, config=config, subfolder="unet")
            # three widths, because this autoencoder makes pictures smaller by four and not by eight
            components["controlnet"] = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16))
        pictures = []
        for owner, name in ((altdiffusion_clip, "AltDiffusion"), (diffusers, "StableDiffusion")):
            pipe = getattr(owner, f"{name}{task}Pipeline").from_single_file(file, config=config, **components)
            pipe.set_progress_bar_config(disable=True)
            generator = torch.Generator().manual_seed(0)
            outputs = pipe("猫", num_inference_steps=3, generator=generator, output_type="np", **arguments)
            pictures.append(outputs.images)
        assert np.isfinite(pictures[0]).all()
        np.testing.assert_allclose(pictures[0], pictures[1], atol=TOLERANCE)

    def test_the_moving_average_is_taken_when_asked_for(self, m: str, configs, files) -> None:
        file, config = files["webui.ema"], str(configs)
        last, average = (
            draw(AltDiffusionPipeline.from_single_file(str(file), config=config, extract_ema=extract_ema))
            for extract_ema in (False, True)
        )
        assert np.abs(last - average).max() > 1e-3
        for actual, extract_ema in ((last, False), (average, True)):
            expected = draw(reference_pipeline(file, configs, m, extract_ema))
            np.testing.assert_allclose(actual, expected, atol=TOLERANCE)

    @pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
    def test_the_moving_average_alone_is_the_unet(self, suffix: str, m: str, configs, files, tmp_path: Path) -> None:
        tensors = replicas.ldm_tensors(m, configs, ema=True)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.diffusion_model.")}
        file = replicas.write(tensors, tmp_path / f"average{suffix}")
        actual = draw(AltDiffusionPipeline.from_single_file(str(file), config=str(configs)))
        expected = draw(reference_pipeline(files["webui.ema"], configs, m, extract_ema=True))
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
        half = AltDiffusionPipeline.from_single_file(str(file), config=str(configs), dtype=torch.float16)
        assert half.unet.dtype == torch.float16
        convert(file, tmp_path / "folder", config=configs)
        np.testing.assert_allclose(
            draw(AltDiffusionPipeline.from_pretrained(tmp_path / "folder")), expected, atol=TOLERANCE
        )

    def test_dtypes(self, configs: Path, files: dict[str, Path]) -> None:
        for arguments, expected in (
            ({}, torch.float32),
            ({"dtype": torch.float16}, torch.float16),
            ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
        ):
            pipe = AltDiffusionPipeline.from_single_file(str(files["webui.fp16"]), config=str(configs), **arguments)
            assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {expected}, arguments

    @pytest.mark.parametrize("kind", [*KINDS, "webui.ckpt"])
    def test_offloaded_embeddings_change_nothing(self, kind: str, configs: Path, files: dict[str, Path]) -> None:
        plain, offloaded = (
            AltDiffusionPipeline.from_single_file(str(files[kind]), config=str(configs), offload_embeddings=offload)
            for offload in (False, True)
        )
        assert "roberta.embeddings.word_embeddings.weight" not in dict(offloaded.text_encoder.named_parameters())
        np.testing.assert_array_equal(draw(offloaded), draw(plain))

    def test_a_stable_diffusion_file_is_left_to_diffusers(self, files: dict[str, Path], monkeypatch) -> None:
        from altdiffusion_clip.pipelines import single_file

        arguments = {"config": "somewhere", "torch_dtype": torch.float16}
        stranger = files["webui"].with_name("sd.safetensors")
        replicas.write({"cond_stage_model.transformer.text_model.x": torch.ones(1)}, stranger)
        with single_file.single_file_arguments(StableDiffusionPipeline, str(stranger), arguments) as given:
            assert given is arguments


class TestTokenizer:
    def test_a_folder_beside_the_file_or_named(self, m: str, configs: Path, files: dict[str, Path], tmp_path) -> None:
        bare = tmp_path / "configs"
        shutil.copytree(configs, bare, ignore=shutil.ignore_patterns("*.bpe.model"))
        expected = draw(AltDiffusionPipeline.from_single_file(str(files["webui"]), config=str(configs)))
        with pytest.raises(CheckpointError, match="holds no tokenizer"):
            AltDiffusionPipeline.from_single_file(str(files["webui"]), config=str(bare))
        named = AltDiffusionPipeline.from_single_file(
            str(files["webui"]), config=str(bare), tokenizer=str(replicas.FIXTURES / f"alt-clip-{m}-tiny")
        )
        np.testing.assert_array_equal(draw(named), expected)
        beside = shutil.copy(files["webui"], tmp_path)
        shutil.copy(replicas.FIXTURES / f"alt-clip-{m}-tiny" / "sentencepiece.bpe.model", tmp_path)
        np.testing.assert_array_equal(draw(AltDiffusionPipeline.from_single_file(beside, config=str(bare))), expected)

    def test_one_that_is_loaded_is_used(self, configs: Path, files: dict[str, Path]) -> None:
        tokenizer = XLMRobertaTokenizer.from_pretrained(configs / "tokenizer")
        pipe = AltDiffusionPipeline.from_single_file(str(files["webui"]), config=str(configs), tokenizer=tokenizer)
        assert pipe.tokenizer is tokenizer


class TestScorer:
    def reference(self, m: str) -> AltCLIPModel:
        config = AltCLIPConfig.from_pretrained(replicas.FIXTURES / f"alt-clip-{m}-tiny")
        return AltCLIPModel.from_pretrained(replicas.FIXTURES / f"alt-clip-{m}-tiny", config=config).eval()

    @pytest.mark.parametrize("kind", ["flagai", "flagai.ckpt"])
    @pytest.mark.parametrize("offload", [False, True])
    @torch.no_grad()
    def test_straight_from_a_flagai_file(self, kind: str, offload: bool, m: str, configs, files, published) -> None:
        scorer = AltCLIPScorer.from_pretrained(files[kind], config=configs, offload_embeddings=offload)
        tokens = scorer.processor.tokenizer(["苹果", "a dog"], padding=True, return_tensors="pt")
        image = Image.open(published / "init.png")
        pixels = scorer.processor.image_processor(image, return_tensors="pt").pixel_values
        expected = self.reference(m)(tokens.input_ids, pixels, tokens.attention_mask).logits_per_image
        actual = scorer(tokens.input_ids, pixels, tokens.attention_mask).logits_per_image
        torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)

    def test_as_the_head_of_the_pipeline_in_the_same_file(self, m: str, configs, files, published) -> None:
        pipe = AltDiffusionPipeline.from_single_file(str(files["flagai"]), config=str(configs))
        shared = AltCLIPScorer.from_pipeline(pipe, files["flagai"], config=configs)
        assert shared.text_model is pipe.text_encoder
        alone = AltCLIPScorer.from_pretrained(replicas.FIXTURES / f"alt-clip-{m}-tiny")
        torch.testing.assert_close(
            shared.similarity(["猫", "dog"], published / "init.png"),
            alone.similarity(["猫", "dog"], published / "init.png"),
            atol=TOLERANCE,
            rtol=0,
        )

    def test_a_webui_file_has_none(self, configs: Path, files: dict[str, Path]) -> None:
        with pytest.raises(CheckpointError, match="without a scorer"):
            AltCLIPScorer.from_pretrained(files["webui"], config=configs)


def test_layouts_are_told_by_content(configs: Path, files: dict[str, Path], tmp_path: Path) -> None:
    for kind, layout in (("webui.ckpt", Layout.WEBUI), ("flagai", Layout.FLAGAI)):
        misnamed = shutil.copy(files[kind], tmp_path / f"{kind}.dat")
        assert open_checkpoint(Path(misnamed), configs).layout is layout
    assert CheckpointTensors(files["webui"]).keys() == CheckpointTensors(files["webui.ckpt"]).keys()


def test_sizes_that_were_never_published_need_their_configurations(files: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="none of the published sizes"):
        open_checkpoint(files["webui"])


def test_no_notice_of_the_tower_is_lost(configs: Path, files: dict[str, Path], caplog) -> None:
    with caplog.at_level(logging.WARNING):
        AltDiffusionPipeline.from_single_file(str(files["webui"]), config=str(configs))
    assert "newly initialized" not in caplog.text


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "a/b/evil.json", "evil.py"])
def test_names_in_a_file_lead_nowhere_else(name: str, published: Path, tmp_path: Path) -> None:
    from altdiffusion_clip.checkpoints.convert import convert
    from altdiffusion_clip.checkpoints.layouts import EMBEDDED_CONFIGS

    convert(published / "alt-diffusion-m9-tiny", tmp_path / "good.safetensors")
    tensors = CheckpointTensors(tmp_path / "good.safetensors")
    embedded = json.loads(tensors.metadata[EMBEDDED_CONFIGS]) | {name: "{}"}
    metadata = {"format": "pt", EMBEDDED_CONFIGS: json.dumps(embedded)}
    save_file(tensors.together(tensors), tmp_path / "bad.safetensors", metadata=metadata)
    assert name not in open_checkpoint(tmp_path / "bad.safetensors").embedded
    convert(tmp_path / "bad.safetensors", tmp_path / "inner" / "folder")
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"unet/config.json": "{"}', '{"unet/config.json": "{}"}'])
def test_configurations_in_a_file_that_are_damaged(content: str, published: Path, tmp_path: Path) -> None:
    from altdiffusion_clip.checkpoints.convert import convert
    from altdiffusion_clip.checkpoints.layouts import EMBEDDED_CONFIGS

    convert(published / "alt-diffusion-m9-tiny", tmp_path / "good.safetensors")
    tensors = CheckpointTensors(tmp_path / "good.safetensors")
    metadata = {"format": "pt", EMBEDDED_CONFIGS: content}
    save_file(tensors.together(tensors), tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="are damaged"):
        open_checkpoint(tmp_path / "bad.safetensors")
    assert open_checkpoint(tmp_path / "bad.safetensors", published / "alt-diffusion-m9-tiny").tensors
