import inspect
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltDiffusionImg2ImgPipeline, AltDiffusionInpaintPipeline
from tests.conftest import in_full

FRESH = """
import sys, numpy as np, torch
{imports}
folder, golden, out = sys.argv[1:]
pipe = {loader}.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
golden = np.load(golden)
picture = pipe(str(golden["prompts"][1]), negative_prompt="模糊", num_inference_steps=4, guidance_scale=5.0, height=64,
               width=64, generator=torch.Generator().manual_seed(101), output_type="np").images[0]
np.save(out, picture)
"""


UNCHANGED = (
    "import sys, diffusers, diffusers.pipelines, diffusers.loaders.single_file as single_file\n"
    "from diffusers.pipelines import auto_pipeline\n"
    "assert not hasattr(diffusers.pipelines, 'alt_diffusion')\n"
    "assert 'alt-diffusion' not in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING\n"
    "before = single_file.FromSingleFileMixin.from_single_file\n"
    "assert before.__func__.__module__.startswith(('diffusers', 'huggingface_hub'))\n"
)
"""Without our import nothing of diffusers is changed."""


def draw_in_a_fresh_process(imports: str, loader: str, folder, published, out) -> np.ndarray:
    code = FRESH.format(imports=imports, loader=loader)
    command = [sys.executable, "-c", code, str(folder), str(published / "golden.npz"), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return np.load(out)


@pytest.mark.parametrize("m", ["m18", *in_full("m9")])
def test_a_saved_pipeline_loads_in_a_fresh_process(m: str, published, golden, tmp_path) -> None:
    from altdiffusion_clip import AltDiffusionPipeline

    saved = tmp_path / "saved"
    AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny").save_pretrained(saved)
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "AltDiffusionPipeline"
    assert index["text_encoder"] == ["alt_diffusion", "RobertaSeriesModelWithTransformation"]
    # diffusers is imported first here, so the change is made to modules that are already there.
    imports = f"{UNCHANGED}from diffusers import DiffusionPipeline; import altdiffusion_clip"
    picture = draw_in_a_fresh_process(imports, "DiffusionPipeline", saved, published, tmp_path / "a.npy")
    np.testing.assert_allclose(picture, golden[f"{m}.image.1"], atol=1e-5)


@pytest.mark.parametrize("m", ["m9", *in_full("m18")])
@pytest.mark.parametrize(
    "loader", ["AltDiffusionPipeline", "DiffusionPipeline", "StableDiffusionPipeline", "AutoPipelineForText2Image"]
)
def test_published_folders_load_in_every_pipeline(loader: str, m: str, published, golden) -> None:
    import diffusers

    import altdiffusion_clip

    owner = altdiffusion_clip if loader == "AltDiffusionPipeline" else diffusers
    pipe = getattr(owner, loader).from_pretrained(published / f"alt-diffusion-{m}-tiny")
    if loader != "StableDiffusionPipeline":
        assert type(pipe) is altdiffusion_clip.AltDiffusionPipeline
    pipe.set_progress_bar_config(disable=True)
    for i in (1, 2, 10):
        picture = pipe(
            str(golden["prompts"][i]),
            negative_prompt="模糊",
            num_inference_steps=4,
            guidance_scale=5.0,
            height=64,
            width=64,
            generator=torch.Generator().manual_seed(100 + i),
            output_type="np",
        ).images[0]
        np.testing.assert_allclose(picture, golden[f"{m}.image.{i}"], atol=1e-5)


def draw_for_a_task(pipe) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    name = type(pipe).__name__
    arguments = {"image": Image.new("RGB", (64, 64), "red")}
    if "Inpaint" in name:
        arguments["mask_image"] = Image.new("L", (64, 64), 255)
    if "Img2Img" not in name:
        arguments |= {"height": 64, "width": 64}
    settings = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0), "output_type": "np"}
    return pipe("猫", **settings, **arguments).images[0]


IN_A_FRESH_PROCESS = """
import sys, numpy as np, torch
import altdiffusion_clip
from diffusers import ControlNetModel, UNet2DConditionModel, {loader}
from PIL import Image
{draw}
folder, out = sys.argv[1:]
more = {{}}
if "ControlNet" in "{loader}":
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    more = {{"controlnet": ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16))}}
np.save(out, draw_for_a_task({loader}.from_pretrained(folder, **more)))
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("loader", "ours"),
    [
        ("StableDiffusionImg2ImgPipeline", AltDiffusionImg2ImgPipeline),
        ("StableDiffusionInpaintPipeline", AltDiffusionInpaintPipeline),
        ("StableDiffusionControlNetPipeline", None),
        ("AutoPipelineForImage2Image", AltDiffusionImg2ImgPipeline),
        ("AutoPipelineForInpainting", AltDiffusionInpaintPipeline),
    ],
)
def test_diffusers_pipelines_for_other_tasks_load_it_in_a_fresh_process(loader, ours, published, tmp_path) -> None:
    folder, out = str(published / "alt-diffusion-m9-tiny"), tmp_path / "theirs.npy"
    code = IN_A_FRESH_PROCESS.format(loader=loader, draw=inspect.getsource(draw_for_a_task))
    finished = subprocess.run(
        [sys.executable, "-c", code, folder, str(out)], capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    picture = np.load(out)
    assert np.isfinite(picture).all()
    if ours is not None:
        np.testing.assert_allclose(picture, draw_for_a_task(ours.from_pretrained(folder)), atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("loader", ["DiffusionPipeline", "StableDiffusionPipeline", "AutoPipelineForText2Image"])
def test_diffusers_pipelines_load_it_in_a_fresh_process(loader: str, published, golden, tmp_path) -> None:
    imports = f"import altdiffusion_clip; from diffusers import {loader}"
    folder = published / "alt-diffusion-m9-tiny"
    picture = draw_in_a_fresh_process(imports, loader, folder, published, tmp_path / "a.npy")
    np.testing.assert_allclose(picture, golden["m9.image.1"], atol=1e-5)


@pytest.mark.full
def test_a_script_that_begins_with_the_old_import_runs(published) -> None:
    code = (
        "import altdiffusion_clip\n"
        "from diffusers.pipelines.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation\n"
        "import sys\n"
        "model = RobertaSeriesModelWithTransformation.from_pretrained(sys.argv[1], subfolder='text_encoder')\n"
        "assert type(model).__name__ == 'RobertaSeriesModelWithTransformation'"
    )
    command = [sys.executable, "-c", code, str(published / "alt-diffusion-m9-tiny")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.full
def test_imported_after_diffusers_and_twice_it_changes_diffusers_once() -> None:
    code = (
        f"{UNCHANGED}import altdiffusion_clip\n"
        "import importlib; importlib.reload(altdiffusion_clip)\n"
        "after = single_file.FromSingleFileMixin.from_single_file.__func__\n"
        "assert after.__wrapped__ is before.__func__\n"
        "assert 'alt-diffusion' in auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING\n"
        "assert diffusers.pipelines.alt_diffusion"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


def test_the_old_import_path_works() -> None:
    from diffusers.pipelines.alt_diffusion.modeling_roberta_series import (
        RobertaSeriesConfig,
        RobertaSeriesModelWithTransformation,
    )

    from altdiffusion_clip import text_encoder

    assert RobertaSeriesModelWithTransformation is text_encoder.RobertaSeriesModelWithTransformation
    assert RobertaSeriesConfig is text_encoder.RobertaSeriesConfig


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = textwrap.dedent(
        """
        import sys
        import altdiffusion_clip, altdiffusion_clip.cli
        heavy = {"torch", "diffusers", "transformers", "numpy", "PIL"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.full
def test_diffusers_may_be_imported_after_the_package() -> None:
    code = textwrap.dedent(
        """
        import sys
        import altdiffusion_clip
        import diffusers
        assert "diffusers.pipelines" not in sys.modules or diffusers.pipelines.alt_diffusion
        assert diffusers.AltDiffusionPipeline.__module__.startswith("altdiffusion_clip.")
        """
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


def test_registering_twice_changes_nothing() -> None:
    from altdiffusion_clip import plugin

    before = list(sys.meta_path)
    plugin.register()
    assert sys.meta_path == before


def test_an_unknown_name_is_an_attribute_error() -> None:
    import altdiffusion_clip
    from altdiffusion_clip.pipelines import alt_diffusion

    for module in (altdiffusion_clip, alt_diffusion):
        with pytest.raises(AttributeError, match="AltGuesswork"):
            module.AltGuesswork  # noqa: B018
