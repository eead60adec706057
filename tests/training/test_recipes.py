"""Recipes: stages one after the other, with inputs that the user gives."""

import json
from pathlib import Path
from typing import Any

import pytest

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.cli import main
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.recipes import changes_of, names, read_recipe
from tests.conftest import in_full
from tests.training.worlds import PIPELINE, write_parallel, write_pictures, write_student, write_teacher

INPUTS = {
    "add-language": {"sentences": "new.tsv", "replay": "old.tsv"},
    "altclip-m9": {"sentences": "a.tsv", "pictures": "pictures"},
    "altclip-m18": {"sentences": "a.tsv", "pictures": "pictures"},
    "altdiffusion-m18": {"pictures": "pictures", "beautiful": ["a.tar", "b.tar"]},
    "dreambooth-24gb": {"photos": "mine", "prompt": "一只sks猫", "kind": "一只猫"},
    "lora-8gb": {"pictures": "pictures"},
}


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_whole(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    assert recipe.description
    assert "Source: " in (Path(__file__).parents[2] / f"altdiffusion_clip/training/recipes/{name}.yaml").read_text()
    steps = recipe.steps(tmp_path, INPUTS[name])
    assert [step.config.output for step in steps] == [tmp_path / step.name for step in steps]


def test_later_stages_begin_with_what_earlier_ones_made(tmp_path: Path) -> None:
    concepts, quality, guidance = read_recipe("altdiffusion-m18").steps(tmp_path, INPUTS["altdiffusion-m18"])
    assert quality.config.model == str(tmp_path / "concepts" / "model")
    assert guidance.config.model == str(tmp_path / "quality" / "model")
    assert guidance.config.data == ["a.tar", "b.tar"], "an input may be several places"
    *_, dry = read_recipe("altdiffusion-m18").steps(tmp_path, INPUTS["altdiffusion-m18"], dry_run=True)
    assert dry.config.model == concepts.config.model, "which is there before anything is trained"


def test_changes_are_for_all_stages_or_for_one(tmp_path: Path) -> None:
    changes = {**INPUTS["altclip-m9"], "steps": 7, "distill.batch_size": 3, "augment": True}
    distill, contrastive = read_recipe("altclip-m9").steps(tmp_path, changes)
    assert distill.config.steps == contrastive.config.steps == 7
    assert (distill.config.batch_size, contrastive.config.batch_size) == (3, 1024)
    assert contrastive.config.augment, "a setting that only one stage has"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 1}, "has no setting 'stepz'; did you mean steps"),
        ({"distil.steps": 1}, "has no setting 'distil.steps'; did you mean distill.steps"),
        ({"contrastive.pre_transformation": True}, "has no setting 'contrastive.pre_transformation'"),
        ({"steps": "many"}, "altclip-m9: distill: steps: 'many' is no int"),
        ({"contrastive.data": []}, "contrastive needs data; give it with --set contrastive.data="),
    ],
)
def test_a_change_that_cannot_be_made(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_recipe("altclip-m9").steps(tmp_path, {**INPUTS["altclip-m9"], **changes})


def test_an_input_that_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs pictures=... \(captioned pictures in all languages\): give it with"):
        read_recipe("altclip-m9").steps(tmp_path, {"sentences": "a.tsv"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot read"),
        ("- a", "is no recipe; it needs stages:"),
        ("stages: {}", "is no recipe"),
        ("stages: {distill: 3}", "is no recipe"),
        ("stages: {teach: {steps: 1}}", "teach is no stage; write stage: with one of distill"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_recipe(str(tmp_path / "a.yaml"))
    with pytest.raises(UserError, match="there is no recipe nothing; name a YAML file, or one of add-language"):
        read_recipe("nothing")


def test_changes_on_the_command_line() -> None:
    given = ["a=1.5e-4", "b=[x, y]", "c=no", "d=a b.tsv", "e={00..09}.tar", "f=", "g={en: 2.0}"]
    given += ["h=true", "i=7", "j=3 cats"]
    expected = {"a": 1.5e-4, "b": ["x", "y"], "c": "no", "d": "a b.tsv", "e": "{00..09}.tar", "f": "", "g": {"en": 2.0}}
    assert changes_of(given) == {**expected, "h": True, "i": 7, "j": "3 cats"}
    with pytest.raises(UserError, match="write KEY=VALUE"):
        changes_of(["steps"])


def shrunk(name: str, folder: Path) -> list[str]:
    """What makes a recipe small, by flags alone."""
    small = ["steps=2", "batch_size=2", "gradient_accumulation_steps=1", "warmup_steps=0", "workers=0"]
    small += ["mixed_precision=no", "cpu=true"]
    pictures = write_pictures(folder / "pictures", ("en", "zh"))
    if name.startswith("altclip"):
        teacher, student = write_teacher(folder / "teacher"), write_student(folder / "student")
        sentences = write_parallel(folder / "a.jsonl", ("en", "zh"))
        small += [f"teacher={teacher}", f"distill.student={student}", f"sentences={sentences}", f"pictures={pictures}"]
        return [*small, "distill.languages=[zh]"]
    if name == "altdiffusion-m18":
        small += [f"concepts.model={PIPELINE}", f"concepts.text_encoder={PIPELINE}", "resolution=16"]
        small += ["concepts.keys_and_values_steps=1", "concepts.steps=0"]
        return [*small, f"pictures={pictures}", f"beautiful={pictures}"]
    if name == "add-language":
        small += ["model=emoji-m18"]
        sentences = write_parallel(folder / "new.jsonl", ("en", "de"))
        return [*small, f"sentences={sentences}", f"replay={write_parallel(folder / 'old.jsonl', ('en', 'zh'))}"]
    small += [f"model={PIPELINE}", "resolution=16"]
    if name == "lora-8gb":
        return [*small, f"pictures={pictures}"]
    return [*small, f"photos={pictures}", "prompt=一只sks猫", "kind=一只猫", "class_images=2"]


@pytest.mark.parametrize("name", ["altclip-m9", *in_full(*(name for name in names() if name != "altclip-m9"))])
def test_every_recipe_runs_shrunk_by_flags_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--recipe", name, "--output", str(tmp_path / "run"), "--json", "--set", *shrunk(name, tmp_path)]
    assert main([*command, "--dry-run"]) == 0
    counted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["trained_parameters"] > 0 and row["frozen_parameters"] >= 0 for row in counted)
    assert not list((tmp_path / "run").glob("*/config.yaml")), "a dry run begins nothing"
    assert main(command) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["stage"] for row in made] == list(read_recipe(name).stages) == [row["stage"] for row in counted]
    last = Path(made[-1]["model"])
    if name.startswith("altclip"):
        assert (last / "text_encoder").exists() == (name == "altclip-m18"), (
            "m18's other projection has a place of its own"
        )
        assert AltCLIPScorer.from_pretrained(last).encode_texts(["猫"]).isfinite().all()
    elif name == "altdiffusion-m18":
        assert AltDiffusionPipeline.from_pretrained(last).unet is not None
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert main(command) == 0, "and what is done is not done again"
    assert {path: path.stat().st_mtime_ns for path in before if path.suffix != ".yaml"} == {
        path: time for path, time in before.items() if path.suffix != ".yaml"
    }


def test_a_recipe_is_named_or_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "name a stage (distill, contrastive," in capsys.readouterr().err
