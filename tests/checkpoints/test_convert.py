"""Conversions between the published layouts: bit by bit, in little memory, whole or not at all."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AltCLIPModel

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.convert import convert
from altdiffusion_clip.checkpoints.layouts import Layout, open_checkpoint
from altdiffusion_clip.checkpoints.tensors import CheckpointTensors
from altdiffusion_clip.errors import CheckpointError, UserError
from tests.checkpoints import replicas
from tests.conftest import in_full

PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(params=["m18", *in_full("m9")])
def m(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_same(one: CheckpointTensors, other: CheckpointTensors, without: tuple[str, ...] = ()) -> None:
    names = {name for name in one if name not in without}
    assert names == {name for name in other if name not in without}
    for name in names:
        assert one.dtype(name) == other.dtype(name), name
        assert torch.equal(one[name], other[name].reshape(one.shape(name))), name


def picture(pipe: StableDiffusionPipeline) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("猫", num_inference_steps=2, height=64, width=64, generator=generator, output_type="np").images[0]


class TestRoundTrips:
    def test_folder_to_single_file_to_folder(self, m: str, published: Path, tmp_path: Path) -> None:
        source = published / f"alt-diffusion-{m}-tiny"
        single = convert(source, tmp_path / "single.safetensors")
        assert single.layout is Layout.WEBUI
        assert single.left_out == ["safety_checker"]
        folder = convert(tmp_path / "single.safetensors", tmp_path / "folder")
        assert folder.layout is Layout.DIFFUSERS
        before, after = open_checkpoint(source), open_checkpoint(tmp_path / "folder")
        for part in PARTS:
            assert_same(before.tensors[part], after.tensors[part])
            assert before.configs[part] == after.configs[part]
        vocabulary = "tokenizer/sentencepiece.bpe.model"
        assert (source / vocabulary).read_bytes() == (tmp_path / "folder" / vocabulary).read_bytes()
        expected = picture(AltDiffusionPipeline.from_pretrained(source, safety_checker=None))
        for place in (tmp_path / "single.safetensors", tmp_path / "folder"):
            np.testing.assert_array_equal(picture(AltDiffusionPipeline.from_pretrained(place)), expected)

    @pytest.mark.parametrize("kind", ["webui", "flagai"])
    def test_single_file_to_folder_to_single_file(self, kind: str, m: str, tmp_path: Path) -> None:
        configs = replicas.config_folder(m, tmp_path / "configs")
        tensors = replicas.ldm_tensors(m, configs, flagai=kind == "flagai")
        source = replicas.write(tensors, tmp_path / "source.ckpt")
        convert(source, tmp_path / "folder", config=configs)
        convert(tmp_path / "folder", tmp_path / "back.safetensors")
        back = load_file(tmp_path / "back.safetensors")
        prefix = "cond_stage_model.text_model." if kind == "flagai" else "cond_stage_model."
        for name, tensor in tensors.items():
            if not name.startswith(("model.diffusion_model.", "first_stage_model.", prefix)):
                continue
            here = back[name.replace(prefix, "cond_stage_model.")]
            assert here.dtype == tensor.dtype, name
            assert here.shape == tensor.shape, name
            assert torch.equal(here, tensor), name

    def test_altclip_to_scorer_to_altclip(self, m: str, published: Path, tmp_path: Path) -> None:
        source = published / f"alt-clip-{m}-tiny"
        AltCLIPScorer.from_pretrained(source).save_pretrained(tmp_path / "saved")
        convert(source, tmp_path / "converted")
        before = open_checkpoint(source).tensors["altclip"]
        for folder in ("saved", "converted"):
            assert_same(before, open_checkpoint(tmp_path / folder).tensors["altclip"])
            _, info = AltCLIPModel.from_pretrained(tmp_path / folder, output_loading_info=True)
            assert not info["missing_keys"]
            assert not info["unexpected_keys"]

    def test_emoji_m18_keeps_its_scorer(self, tmp_path: Path) -> None:
        done = convert("emoji-m18", tmp_path / "folder", dtype=torch.float16, variant="fp16")
        assert done.left_out == ["teacher"]
        assert {p.name for p in (tmp_path / "folder").rglob("*.safetensors")} == {
            "model.fp16.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
        }
        pipe = AltDiffusionPipeline.from_pretrained(tmp_path / "folder", variant="fp16", dtype=torch.float32)
        assert AltCLIPScorer.from_pipeline(pipe).text_model is pipe.text_encoder
        for part in (*PARTS, "altclip"):
            tensors = open_checkpoint(tmp_path / "folder").tensors[part]
            assert {tensors.dtype(name) for name in tensors} == {torch.float16}


class TestSingleFiles:
    def test_a_flagai_file_becomes_a_pipeline_with_its_scorer(self, m: str, published: Path, tmp_path: Path) -> None:
        configs = replicas.config_folder(m, tmp_path / "configs")
        source = replicas.write(replicas.ldm_tensors(m, configs, flagai=True), tmp_path / "a.safetensors")
        done = convert(source, tmp_path / "folder", config=configs)
        assert done.left_out == []
        pipe = AltDiffusionPipeline.from_pretrained(tmp_path / "folder")
        shared = AltCLIPScorer.from_pipeline(pipe)
        expected = AltCLIPScorer.from_pretrained(published / f"alt-clip-{m}-tiny")
        texts, image = ["猫", "a dog"], published / "init.png"
        torch.testing.assert_close(
            shared.similarity(texts, image), expected.similarity(texts, image), atol=1e-6, rtol=0
        )
        assert convert(source, tmp_path / "webui.safetensors", config=configs).left_out == ["the scorer"]

    def test_the_moving_average(self, tmp_path: Path) -> None:
        configs = replicas.config_folder("m9", tmp_path / "configs")
        source = replicas.write(replicas.ldm_tensors("m9", configs, ema=True), tmp_path / "a.ckpt")
        last = convert(source, tmp_path / "last", config=configs)
        assert last.left_out == ["the UNet's moving average (--ema takes it)"]
        convert(source, tmp_path / "average", config=configs, extract_ema=True)
        one, other = (open_checkpoint(tmp_path / name).tensors["unet"] for name in ("last", "average"))
        for name in one:
            torch.testing.assert_close(other[name], one[name] + 0.01)
        with pytest.raises(CheckpointError, match="no moving average"):
            convert(tmp_path / "last", tmp_path / "nothing", extract_ema=True)

    def test_what_we_write_diffusers_own_classes_read(self, m: str, published: Path, tmp_path: Path) -> None:
        source = published / f"alt-diffusion-{m}-tiny"
        convert(source, tmp_path / "single.safetensors")
        for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
            theirs = kind.from_single_file(str(tmp_path / "single.safetensors"), config=str(source), subfolder=part)
            expected = kind.from_pretrained(source, subfolder=part).state_dict()
            for name, tensor in theirs.state_dict().items():
                assert torch.equal(tensor, expected[name]), name

    def test_it_carries_its_configurations(self, published: Path, tmp_path: Path) -> None:
        convert(published / "alt-diffusion-m9-tiny", tmp_path / "single.safetensors", dtype=torch.float16)
        with safe_open(tmp_path / "single.safetensors", framework="pt") as file:
            configs = json.loads(file.metadata()["altdiffusion_clip.configs"])
        assert {"model_index.json", "unet/config.json", "tokenizer/tokenizer_config.json"} <= configs.keys()
        assert not any(name.startswith(("safety_checker", "scorer")) for name in configs)
        again = convert(tmp_path / "single.safetensors", tmp_path / "again.safetensors", dtype=torch.float32)
        assert again.nbytes > 0
        np.testing.assert_array_equal(
            picture(AltDiffusionPipeline.from_pretrained(tmp_path / "again.safetensors")),
            picture(AltDiffusionPipeline.from_pretrained(tmp_path / "single.safetensors")),
        )


class TestMistakes:
    def test_a_destination_that_is_there(self, published: Path, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "mine.txt").touch()
        (tmp_path / "mine.safetensors").write_text("mine")
        for name in ("folder", "mine.safetensors"):
            with pytest.raises(UserError, match="exists already"):
                convert(published / "alt-diffusion-m9-tiny", tmp_path / name)
        assert (tmp_path / "mine.safetensors").read_text() == "mine"

    def test_a_safety_checker_without_weights_is_left(self, published: Path, tmp_path: Path) -> None:
        source = tmp_path / "source"
        shutil.copytree(published / "alt-diffusion-m9-tiny", source)
        shutil.rmtree(source / "safety_checker", ignore_errors=True)
        (source / "safety_checker").mkdir()
        (source / "safety_checker" / "config.json").write_text("{}")
        convert(source, tmp_path / "folder")
        assert (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors").is_file()
        assert not list((tmp_path / "folder" / "safety_checker").glob("*.safetensors"))

    def test_an_altclip_is_no_single_file(self, published: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="is an AltCLIP without a UNet"):
            convert(published / "alt-clip-m9-tiny", tmp_path / "a.safetensors")

    def test_a_variant_of_a_single_file(self, published: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="variant"):
            convert(published / "alt-diffusion-m9-tiny", tmp_path / "a.safetensors", variant="fp16")

    def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
        self, published, tmp_path, monkeypatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
        with pytest.raises(UserError, match=r"needs 0\.0 GB and the disk has 0\.0 GB free"):
            convert(published / "alt-diffusion-m9-tiny", tmp_path / "folder")
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["folder", *in_full("single.safetensors")])
    def test_a_disk_that_fills_on_the_way_leaves_nothing(self, name: str, published: Path, tmp_path: Path) -> None:
        """The system lets no file grow beyond 300 kB, as a full disk does, in the midst of a write."""
        code = (
            "import resource, sys; from altdiffusion_clip.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
            "sys.exit(main(['convert', *sys.argv[1:]]))"
        )
        command = [sys.executable, "-c", code, str(published / "alt-diffusion-m9-tiny"), str(tmp_path / name)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 2, finished.stderr
        assert f"altdiffusion: cannot write {tmp_path / name}: File too large" in finished.stderr
        assert "Traceback" not in finished.stderr
        assert not any(tmp_path.iterdir())

    def test_a_small_file_system(self, published: Path, tmp_path: Path) -> None:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
        if mounted.returncode:
            pytest.skip("mounting a file system needs more rights")
        try:
            with pytest.raises(UserError, match="the disk has"):
                convert(published / "alt-diffusion-m9-tiny", tmp_path / "folder")
            assert not any(tmp_path.iterdir())
        finally:
            subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["safetensors", "ckpt"])
def test_a_conversion_holds_one_tensor_at_a_time(kind: str, tmp_path: Path) -> None:
    """600 MB in tensors of 2 MB, which a process of its own converts with much less than that resident."""
    configs = replicas.config_folder("m9", tmp_path / "configs")
    tensors = replicas.ldm_tensors("m9", configs)
    large = {f"cond_stage_model.roberta.extra.{i}": torch.zeros(2**19) for i in range(300)}
    source = replicas.write(tensors | large, tmp_path / f"large.{kind}")
    code = (
        "import sys; from pathlib import Path\n"
        "from altdiffusion_clip.checkpoints import convert as module, tensors\n"
        "def peak(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "tensors.LET_GO_AFTER = 2**26\n"
        "module.convert(sys.argv[1], sys.argv[3], config=Path(sys.argv[4]))\n"  # imports what is needed
        "before = peak()\n"
        "module.convert(sys.argv[2], sys.argv[3] + '-large', config=Path(sys.argv[4]))\n"
        "print(before, peak())"
    )
    small = replicas.write(tensors, tmp_path / f"small.{kind}")
    command = [sys.executable, "-c", code, *map(str, (small, source, tmp_path / "folder", configs))]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    before, after = map(int, finished.stdout.split()[-2:])
    assert (tmp_path / "folder-large" / "text_encoder" / "model.safetensors").stat().st_size > 600e6
    assert after - before < 200_000  # kB
