"""Folders in every published shape, through every loader."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as reference
from safetensors.torch import load_file, save_file
from transformers import AltCLIPModel

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.layouts import Layout, open_checkpoint
from altdiffusion_clip.errors import CheckpointError
from tests.checkpoints import replicas

LATER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(params=["m9", "m18"])
def m(request: pytest.FixtureRequest) -> str:
    return request.param


def picture(pipe: AltDiffusionPipeline, golden: dict[str, np.ndarray]) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 5.0, "height": 64, "width": 64, "output_type": "np"}
    generator = torch.Generator().manual_seed(101)
    return pipe(str(golden["prompts"][1]), negative_prompt="模糊", generator=generator, **settings).images[0]


def rewrite(folder: Path, m: str, published: Path, **save: object) -> None:
    """Writes the weights anew as their own classes do, with the options that hub repositories are made with."""
    source = published / f"alt-diffusion-{m}-tiny"
    unsaved = ("*.bin", "*.safetensors")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*unsaved, "safety_checker"))
    for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        kind.from_pretrained(source, subfolder=part).save_pretrained(folder / part, **save)
    text_encoder = reference.RobertaSeriesModelWithTransformation.from_pretrained(source, subfolder="text_encoder")
    text_encoder.save_pretrained(
        folder / "text_encoder", **{k: v for k, v in save.items() if k != "safe_serialization"}
    )
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "safety_checker": [None, None]}))


class TestPipelines:
    def test_shards(self, m: str, published: Path, golden, tmp_path: Path) -> None:
        rewrite(tmp_path / "sharded", m, published, max_shard_size="200KB")
        for part in ("unet", "text_encoder"):
            assert len(list((tmp_path / "sharded" / part).glob("*-of-*.safetensors"))) > 1
        pipe = AltDiffusionPipeline.from_pretrained(tmp_path / "sharded")
        np.testing.assert_allclose(picture(pipe, golden), golden[f"{m}.image.1"], atol=1e-5)
        offloaded = AltDiffusionPipeline.from_pretrained(tmp_path / "sharded", offload_embeddings=True)
        np.testing.assert_array_equal(picture(offloaded, golden), picture(pipe, golden))
        next((tmp_path / "sharded" / "unet").glob("*-of-*.safetensors")).unlink()
        with pytest.raises(CheckpointError, match="lacks diffusion_pytorch_model-"):
            AltDiffusionPipeline.from_pretrained(tmp_path / "sharded")

    def test_variants(self, m: str, published: Path, golden, tmp_path: Path) -> None:
        rewrite(tmp_path / "both", m, published, variant="fp16")
        pipe = AltDiffusionPipeline.from_pretrained(tmp_path / "both", variant="fp16")
        np.testing.assert_allclose(picture(pipe, golden), golden[f"{m}.image.1"], atol=1e-5)
        offloaded = AltDiffusionPipeline.from_pretrained(tmp_path / "both", variant="fp16", offload_embeddings=True)
        np.testing.assert_array_equal(picture(offloaded, golden), picture(pipe, golden))

    def test_pickles_and_what_old_libraries_saved(self, published: Path, golden, tmp_path: Path) -> None:
        """A pooler, position_ids, a logit_scale, and the names that diffusers had for attention until 0.15."""
        folder = tmp_path / "old"
        shutil.copytree(published / "alt-diffusion-m9-tiny", folder)
        tensors = replicas.text_encoder_tensors("m9")
        tensors |= {"roberta.pooler.dense.weight": torch.eye(32), "roberta.pooler.dense.bias": torch.zeros(32)}
        tensors |= {"roberta.embeddings.position_ids": torch.arange(514)[None], "logit_scale": torch.tensor(2.6)}
        torch.save(tensors, folder / "text_encoder" / "pytorch_model.bin")
        path = folder / "vae" / "diffusion_pytorch_model.bin"
        vae = torch.load(path, weights_only=True)
        for new, old in LATER.items():
            vae = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for name, value in vae.items()}
        assert any(".query." in name for name in vae)
        torch.save(vae, path)
        pipe = AltDiffusionPipeline.from_pretrained(folder)
        np.testing.assert_allclose(picture(pipe, golden), golden["m9.image.1"], atol=1e-5)
        checkpoint = open_checkpoint(folder)
        assert not any(".query." in name for name in checkpoint.tensors["vae"])

    def test_a_dreambooth_child(self, m: str, published: Path, golden, tmp_path: Path) -> None:
        """As diffusers' DreamBooth script saves it: trained tower and UNet, no safety checker, another scheduler."""
        folder = tmp_path / "child"
        rewrite(folder, m, published)
        index = json.loads((folder / "model_index.json").read_text())
        del index["feature_extractor"], index["image_encoder"]
        index |= {"scheduler": ["diffusers", "DDIMScheduler"], "requires_safety_checker": False}
        (folder / "model_index.json").write_text(json.dumps({**index, "feature_extractor": [None, None]}))
        path = folder / "text_encoder" / "model.safetensors"
        trained = {name: value + 0.01 for name, value in load_file(path).items()}
        save_file(trained, path, metadata={"format": "pt"})
        pipe = AltDiffusionPipeline.from_pretrained(folder)
        assert pipe.safety_checker is None
        assert pipe.scheduler.config._class_name == "DDIMScheduler"
        assert np.abs(picture(pipe, golden) - golden[f"{m}.image.1"]).max() > 1e-3
        with pytest.raises(CheckpointError, match=r"word_embeddings\.weight differs"):
            AltCLIPScorer.from_pipeline(pipe, published / f"alt-clip-{m}-tiny")

    def test_with_and_without_pre_ln(self, m: str, published: Path, golden, tmp_path: Path) -> None:
        folder = tmp_path / "with"
        rewrite(folder, m, published)
        path = folder / "text_encoder" / "model.safetensors"
        layer_norm = {
            name: replicas.altclip_tensors(m)[f"text_model.{name}"] for name in ("pre_LN.weight", "pre_LN.bias")
        }
        save_file({**load_file(path), **layer_norm}, path, metadata={"format": "pt"})
        pipe = AltDiffusionPipeline.from_pretrained(folder)
        assert pipe.text_encoder.pre_LN is not None
        np.testing.assert_allclose(picture(pipe, golden), golden[f"{m}.image.1"], atol=1e-5)

    @pytest.mark.parametrize("offload", [False, True])
    @pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
    def test_dtypes_old_and_new(self, argument: str, offload: bool, published: Path) -> None:
        arguments = {argument: torch.float16, "offload_embeddings": offload, "low_cpu_mem_usage": True}
        pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", **arguments)
        assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float16}

    def test_a_text_encoder_that_is_passed_is_used(self, published: Path, caplog) -> None:
        from altdiffusion_clip import RobertaSeriesModelWithTransformation

        folder = published / "alt-diffusion-m9-tiny"
        text_encoder = RobertaSeriesModelWithTransformation.from_pretrained(folder, subfolder="text_encoder")
        pipe = AltDiffusionPipeline.from_pretrained(folder, text_encoder=text_encoder)
        assert pipe.text_encoder is text_encoder
        assert "Expected types" not in caplog.text


class TestScorers:
    def test_as_transformers_5_writes_it(self, m: str, published: Path, golden, tmp_path: Path) -> None:
        folder = tmp_path / "altclip"
        source = published / f"alt-clip-{m}-tiny"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.bin", "config.json"))
        AltCLIPModel.from_pretrained(source).save_pretrained(folder)
        as_written = load_file(folder / "model.safetensors")
        renamed = {name.replace(".encoder.layer.", ".encoder.layers."): value for name, value in as_written.items()}
        assert renamed.keys() != as_written.keys()
        pipe = AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny")
        for tensors in (renamed, as_written):
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            for scorer in (AltCLIPScorer.from_pretrained(folder), AltCLIPScorer.from_pipeline(pipe, folder)):
                texts = [str(prompt) for prompt in golden["prompts"][:10]]
                logits = scorer.logit_scale.exp() * scorer.similarity(texts, published / "init.png").T
                expected = torch.from_numpy(golden[f"altclip.{m}.logits_per_image"])
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    def test_m18s_tokenizer_of_512_tokens(self, published: Path, tmp_path: Path, caplog) -> None:
        folder = tmp_path / "altclip"
        shutil.copytree(published / "alt-clip-m18-tiny", folder)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 512}))
        expected = AltCLIPScorer.from_pretrained(published / "alt-clip-m18-tiny").encode_texts("long " * 300)
        actual = AltCLIPScorer.from_pretrained(folder).encode_texts("long " * 300)
        torch.testing.assert_close(actual, expected)
        assert "only 77 are used" in caplog.text

    @pytest.mark.parametrize(
        "arguments",
        [
            {"device_map": "cpu"},
            {"low_cpu_mem_usage": True},
            {"torch_dtype": torch.float32},
            {"offload_embeddings": True},
        ],
        ids=lambda arguments: next(iter(arguments)),
    )
    def test_arguments_of_transformers(self, arguments: dict[str, object], published: Path) -> None:
        folder = published / "alt-clip-m9-tiny"
        expected = AltCLIPScorer.from_pretrained(folder).encode_texts("猫")
        torch.testing.assert_close(AltCLIPScorer.from_pretrained(folder, **arguments).encode_texts("猫"), expected)
        assert AltCLIPScorer.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


class TestOthers:
    """What is no AltDiffusion is called by its name."""

    @pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
    def test_other_pipelines(self, name: str, tmp_path: Path) -> None:
        index = {"_class_name": name, "text_encoder": ["transformers", "CLIPTextModel"]}
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match=f"is a {name} whose text encoder is CLIPTextModel"):
            AltDiffusionPipeline.from_pretrained(tmp_path)
        (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
        with pytest.raises(CheckpointError, match="is a FluxPipeline whose text encoder is missing"):
            AltDiffusionPipeline.from_pretrained(tmp_path)

    def test_other_models(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
        for load in (AltDiffusionPipeline.from_pretrained, AltCLIPScorer.from_pretrained):
            with pytest.raises(CheckpointError, match="is a BertModel, and neither"):
                load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("conditioner.embedders.0.transformer.x", "a Stable Diffusion XL"),
            ("cond_stage_model.transformer.text_model.x", "a Stable Diffusion 1"),
            ("cond_stage_model.model.transformer.x", "a Stable Diffusion 2"),
            ("bert.encoder.layer.0.x", "a BERT or RoBERTa"),
            ("text_model.encoder.layers.0.x", "a CLIP"),
            ("down_blocks.0.resnets.0.conv1.weight", "one part of a diffusers folder"),
            ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA"),
            ("anything", "something unknown \\(anything"),
        ],
    )
    def test_other_files(self, name: str, said: str, tmp_path: Path) -> None:
        path = replicas.write({name: torch.ones(1)}, tmp_path / "model.safetensors")
        pipeline = AltDiffusionPipeline
        for load in (pipeline.from_single_file, pipeline.from_pretrained, AltCLIPScorer.from_pretrained):
            with pytest.raises(CheckpointError, match=f"is {said}"):
                load(str(path))

    def test_folders_that_are_not_whole(self, published: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"has no model_index\.json"):
            AltDiffusionPipeline.from_pretrained(tmp_path)
        folder = tmp_path / "cut"
        shutil.copytree(published / "alt-diffusion-m9-tiny", folder)
        (folder / "model_index.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"model_index\.json cannot be read"):
            AltDiffusionPipeline.from_pretrained(folder)
        shutil.copy(published / "alt-diffusion-m9-tiny" / "model_index.json", folder)
        (folder / "unet" / "diffusion_pytorch_model.bin").unlink()
        with pytest.raises(CheckpointError, match="unet holds no weights"):
            AltDiffusionPipeline.from_pretrained(folder)
        shutil.rmtree(folder / "unet")
        with pytest.raises(CheckpointError, match=r"has no unet/config\.json"):
            AltDiffusionPipeline.from_pretrained(folder)

    def test_an_altclip_is_no_pipeline_and_a_pipeline_no_altclip(self, published: Path) -> None:
        assert open_checkpoint(published / "alt-clip-m2-tiny").layout is Layout.ALTCLIP
        with pytest.raises(CheckpointError, match="name the AltCLIP"):
            AltCLIPScorer.from_pretrained(published / "alt-diffusion-m9-tiny")
        with pytest.raises(CheckpointError, match="is AltCLIP, a folder"):
            AltDiffusionPipeline.from_pretrained(published / "alt-clip-m2-tiny")


class TestAHeadBesideItsTextEncoder:
    """A pipeline's folder whose `scorer` does not hold the text tower a second time."""

    @pytest.fixture
    def folder(self, m: str, published: Path, tmp_path: Path) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(published / f"alt-diffusion-{m}-tiny", folder)
        whole = AltCLIPScorer.from_pretrained(published / f"alt-clip-{m}-tiny")
        whole.save_pretrained(folder / "scorer")
        weights = folder / "scorer" / "model.safetensors"
        head = {name: tensor for name, tensor in load_file(weights).items() if "roberta" not in name}
        save_file(head, weights, metadata={"format": "pt"})
        return folder

    @pytest.mark.parametrize("name", [".", "scorer"])
    @pytest.mark.parametrize("arguments", [{}, {"offload_embeddings": True}, {"dtype": torch.bfloat16}], ids=str)
    def test_it_scores_as_the_whole(self, name: str, arguments: dict, m: str, folder: Path, published: Path) -> None:
        scorer = AltCLIPScorer.from_pretrained(folder / name, **arguments)
        whole = AltCLIPScorer.from_pretrained(published / f"alt-clip-{m}-tiny", **arguments)
        assert scorer.dtype == whole.dtype
        texts = ["猫", "a red house"]
        torch.testing.assert_close(scorer.encode_texts(texts), whole.encode_texts(texts))
        assert scorer.state_dict().keys() == whole.state_dict().keys()

    def test_a_pipeline_takes_it_and_what_is_saved_is_whole(
        self, m: str, folder: Path, published: Path, tmp_path: Path
    ) -> None:
        scorer = AltCLIPScorer.from_pipeline(AltDiffusionPipeline.from_pretrained(folder))
        scorer.save_pretrained(tmp_path / "saved")
        saved, whole = (
            {name for name in open_checkpoint(place).tensors["altclip"] if "position_ids" not in name}
            for place in (tmp_path / "saved", published / f"alt-clip-{m}-tiny")
        )
        assert saved >= whole

    def test_without_the_text_encoder_it_is_refused(self, folder: Path) -> None:
        shutil.rmtree(folder / "text_encoder")
        with pytest.raises(CheckpointError, match=r"text_encoder|text_model"):
            AltCLIPScorer.from_pretrained(folder / "scorer")
