"""Every stage of the recipe for two steps, on a few pictures, up to a folder that draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.emoji import recipe
from altdiffusion_clip.emoji.concepts import colours, is_held_out
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.judge import Judge
from altdiffusion_clip.emoji.world import Pictures
from altdiffusion_clip.training.loop import LoopConfig


def few_pictures() -> Pictures:
    """The shipped renders, said to have colours that may be said, so that the test needs no font."""
    shown = held_out_pictures()[::5]
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(picture.path))).permute(2, 0, 1) for picture in shown])
    allowed = [next(k for k, c in enumerate(colours()) if not is_held_out(p.concept, c)) for p in shown]
    return Pictures(pixels, torch.tensor([p.concept.index for p in shown]), torch.tensor(allowed))


def test_from_nothing_to_a_folder_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, output = tmp_path / "work", tmp_path / "emoji-m9"
    judge = tmp_path / "judge.safetensors"
    monkeypatch.setattr(recipe, "training_pictures", few_pictures)
    monkeypatch.setattr(recipe, "write_held_out", lambda: None)
    monkeypatch.setattr(recipe, "LoopConfig", lambda **changes: replace(LoopConfig(**changes), steps=2))
    monkeypatch.setattr(Judge, "save", lambda self, path=judge, save=Judge.save: save(self, path))
    monkeypatch.setattr("sys.argv", ["recipe", "--work", str(work), "--output", str(output), "--device", "cpu"])
    recipe.main()

    assert judge.is_file()
    assert {path.stem for path in work.glob("*.pt")} == {
        "vae-crops", "vae", "teacher", "distilled", "scorer", "judge", "unet",
    }  # fmt: skip
    pipe = AltDiffusionPipeline.from_pretrained(output)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe("猫", num_inference_steps=2, num_images_per_prompt=2).images
    scorer = AltCLIPScorer.from_pipeline(pipe)
    assert len(scorer.rank("猫", pictures)) == 2
    for folder in ("teacher", "distilled", "scorer"):
        assert (output / folder / "model.safetensors").is_file()

    # Given again, a finished stage is not trained again.
    before = (output / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    monkeypatch.setattr(
        "sys.argv", ["recipe", "--work", str(work), "--output", str(output), "--stage", "vae", "assemble"]
    )
    recipe.main()
    assert (output / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before
