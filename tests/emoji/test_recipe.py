"""Every stage of the recipe for two steps, on a few pictures, up to a folder that draws."""

import json
import shutil
from pathlib import Path

import pytest

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.emoji import data, recipe
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, Concept, colours, is_held_out
from altdiffusion_clip.emoji.data import PARALLEL_FILE, write_parallel
from altdiffusion_clip.emoji.held_out import held_out_pictures
from altdiffusion_clip.emoji.recogniser import Recogniser
from altdiffusion_clip.training import align

SHOWN = held_out_pictures()[::9]


def few_pictures(folder: Path) -> Path:
    """The shipped renders, said to have colours that may be said, so that the test needs no font."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
        for number, picture in enumerate(SHOWN):
            shutil.copyfile(picture.path, folder / f"{number}.png")
            colour = next(c for c in colours() if not is_held_out(picture.concept, c))
            said = {code: captions(picture.concept, colour, code) for code in LANGUAGES}
            file.write(json.dumps({"image": f"{number}.png", "captions": said}, ensure_ascii=False) + "\n")
    write_parallel(folder / PARALLEL_FILE, LANGUAGES, scenes=False)
    return folder


def shown() -> list[tuple[Concept, ...]]:
    return [(picture.concept,) for picture in SHOWN]


@pytest.mark.full
def test_from_nothing_to_a_folder_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, output = tmp_path / "work", tmp_path / "emoji-m9"
    recogniser = tmp_path / "recogniser.safetensors"
    monkeypatch.setattr(recipe, "write_data", few_pictures)
    monkeypatch.setattr(recipe, "write_scenes", few_pictures)
    monkeypatch.setattr(recipe, "shown_in_pictures", shown)
    monkeypatch.setattr(recipe, "write_held_out", lambda: None)
    monkeypatch.setattr(recipe, "sentences", lambda languages: data.sentences(languages, scenes=False))
    monkeypatch.setattr(align, "SAMPLE_STEPS", 1)
    save = Recogniser.save
    monkeypatch.setattr(Recogniser, "save", lambda self, path=recogniser: save(self, path))
    command = ["recipe", "--work", str(work), "--output", str(output), "--steps", "2"]
    monkeypatch.setattr("sys.argv", command)
    recipe.main()

    assert recogniser.is_file()
    for stage in recipe.STAGES:
        assert (work / stage / "model").is_dir(), stage
    pipe = AltDiffusionPipeline.from_pretrained(output)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe("猫", num_inference_steps=2, num_images_per_prompt=2).images
    scorer = AltCLIPScorer.from_pipeline(pipe)
    assert len(scorer.rank("猫", pictures)) == 2
    for folder in ("teacher", "distilled", "scorer"):
        assert (output / folder / "model.safetensors").is_file()

    # Given again, a finished stage is not trained again.
    before = (work / "vae" / "model" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", [*command, "--stage", "vae"])
    recipe.main()
    assert (work / "vae" / "model" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before


def test_it_stops_in_time_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "write_data", few_pictures)
    monkeypatch.setattr(recipe, "sentences", lambda languages: data.sentences(languages, scenes=False))
    command = ["recipe", "--work", str(tmp_path), "--stage", "vae", "--steps", "100000", "--seconds", "2"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="run the same command again"):
        recipe.main()
    assert (tmp_path / "vae" / "crops" / "checkpoint.pt").is_file()
