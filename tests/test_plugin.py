import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

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


def draw_in_a_fresh_process(imports: str, loader: str, folder, published, out) -> np.ndarray:
    code = FRESH.format(imports=imports, loader=loader)
    command = [sys.executable, "-c", code, str(folder), str(published / "golden.npz"), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return np.load(out)


@pytest.mark.parametrize("m", ["m9", "m18"])
def test_a_saved_pipeline_loads_in_a_fresh_process(m: str, published, golden, tmp_path) -> None:
    from altdiffusion_clip import AltDiffusionPipeline

    saved = tmp_path / "saved"
    AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny").save_pretrained(saved)
    index = json.loads((saved / "model_index.json").read_text())
    assert index["_class_name"] == "AltDiffusionPipeline"
    assert index["text_encoder"] == ["alt_diffusion", "RobertaSeriesModelWithTransformation"]
    # diffusers was imported first here, so the change is made to modules that are already there.
    imports = "from diffusers import DiffusionPipeline; import altdiffusion_clip"
    picture = draw_in_a_fresh_process(imports, "DiffusionPipeline", saved, published, tmp_path / "a.npy")
    np.testing.assert_allclose(picture, golden[f"{m}.image.1"], atol=1e-5)


@pytest.mark.parametrize("m", ["m9", "m18"])
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
