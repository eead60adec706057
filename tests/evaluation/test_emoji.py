"""emoji-m18's measures: lines for every language, and figures that a better model would raise."""

import json

import pytest

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.evaluation import emoji
from altdiffusion_clip.evaluation.emoji import evaluate_drawing, evaluate_retrieval
from tests.conftest import in_full


@pytest.mark.parametrize("languages", [("zh", "de", "th"), *in_full(LANGUAGES)])
def test_the_student_reads_what_the_teacher_does_not(languages: tuple[str, ...]) -> None:
    found = evaluate_retrieval(AltCLIPScorer.from_pretrained("emoji-m18"), scenes=8, languages=languages)
    rows = {(row["system"], row["language"], row["typed"]): row["text_to_image_r1"] for row in found}
    assert {language for system, language, typed in rows if (system, typed) == ("student", "as taught")} == set(
        languages
    )
    assert rows["student", "zh", "as taught"] >= 90
    assert rows["teacher", "zh", "as taught"] < 30
    assert rows["student", "zh", "traditional"] >= 85
    assert rows["student", "de", "first capital"] >= 90
    assert rows["student", "de", "all capitals"] >= 90
    assert ("student", "th", "unseen synonyms") in rows


def test_true_renders_are_right_and_as_near_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of drawing, the true render of the scene that is asked for."""
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    scorer = AltCLIPScorer.from_pipeline(pipeline)
    asked = emoji.draw_scenes(2, seed=31, shares=emoji.DRAWN_SHARES, things=emoji.drawn_concepts(), unseen=True)
    renders = [scene.render() for scene in asked for language in ("en", "ja") for image in range(2)]
    monkeypatch.setattr(emoji, "_pictures", lambda *_: iter(renders))
    whole, *others = evaluate_drawing(pipeline, scorer, scenes=2, images=2, languages=("en", "ja"))
    assert whole["of"] == "all"
    assert whole["prompts"] == 4
    assert whole["right"] == whole["best_right"] == whole["any_right"] == 100
    assert whole["psnr"] > 90
    assert {row["of"] for row in others} >= {"language en", "language ja"}


@pytest.mark.parametrize("dtype", ["float32", *in_full("bfloat16")])
def test_the_command_prints_a_line_for_each(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "evaluate",
        "emoji",
        "--drawing",
        "--scenes",
        "1",
        "--num-images",
        "1",
        "--languages",
        "en",
        "--gallery",
        "2",
        "--json",
        "--dtype",
        dtype,
    ]
    assert main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    recalls = {f"{way}_r{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)}
    assert {"system", "language", "typed", "mr", *recalls} == lines[0].keys()
    assert lines[-1]["of"] == "language en"
    assert lines[-1]["gap"] == pytest.approx(lines[-1]["autoencoder"] - lines[-1]["psnr"], abs=0.02)


@pytest.mark.parametrize("wrong", [["--scenes", "0"], ["--num-images", "0"], ["--languages", "xx"]])
def test_a_wrong_call_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "emoji", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
