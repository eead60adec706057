import json
from pathlib import Path

import numpy as np
import pytest

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.cli import main

SCENES = [
    {"id": "1", "prompts": {"en": "a cat on a blue background", "zh": "蓝色背景上的猫"}},
    {"id": "2", "prompts": {"en": "pizza", "zh": "披萨", "it": "pizza"}},
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "scenes.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in SCENES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pictures(prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    command = ["evaluate", "generation", str(prompts), str(folder), "--model", "emoji-m18", "--steps", "6"]
    assert main([*command, "--num-images", "2", "--no-cache", "--json"]) == 0
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["evaluate", "generation", *arguments, "--no-cache"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_scores_by_language_and_the_gap_to_english(
    prompts: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    code, out, _ = run(capsys, str(prompts), str(pictures), "--html", str(page), "--output", str(report))
    assert code == 0
    assert "CLIP score of drawn pictures, 100 max(cosine, 0)" in out
    rows = {row["language"]: row for row in json.loads(report.read_text())}
    assert {code: row["pictures"] for code, row in rows.items()} == {"en": 4, "zh": 4, "it": 2}

    # The same, by the scorer and by hand.
    scorer = AltCLIPScorer.from_pretrained("emoji-m18").eval()
    drawn = [json.loads(line) for line in (pictures / "results.jsonl").read_text(encoding="utf-8").splitlines()]

    def mean(language: str, against: str) -> list[float]:
        scores = []
        for scene in SCENES:
            files = [pictures / row["file"] for row in drawn if row["prompt"] == scene["prompts"].get(language)]
            if files:
                scores.append(scorer.score(scene["prompts"][against], files).clip_score.mean().item())
        return scores

    for language in ("en", "zh"):
        assert rows[language]["clip_score"] == pytest.approx(np.mean(mean(language, language)), abs=0.01)
        assert rows[language]["clip_score_english"] == pytest.approx(np.mean(mean(language, "en")), abs=0.01)
    gap = np.mean(mean("en", "en")) - np.mean(mean("zh", "en"))
    assert rows["zh"]["gap"] == pytest.approx(gap, abs=0.01)
    assert rows["en"]["gap"] == 0
    assert rows["it"]["gap"] == 0  # the same word, the same pictures
    html = page.read_text(encoding="utf-8")
    assert html.count('class="plot"') == 2
    assert "蓝色背景上的猫" in html


def test_pictures_that_are_there_are_not_drawn_again(
    prompts: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in pictures.glob("*.png")}
    command = [str(prompts), str(pictures), "--model", "emoji-m18", "--steps", "6", "--num-images", "2"]
    assert run(capsys, *command)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in pictures.glob("*.png")} == before


def test_without_english_there_is_no_gap(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zh.jsonl"
    path.write_text(json.dumps({"prompts": {"zh": "披萨"}}) + "\n")
    code, out, _ = run(capsys, str(path), str(pictures), "--json")
    assert code == 0
    row = json.loads(out)
    assert (row["gap"], row["clip_score_english"], row["unit"]) == (None, None, "CLIP score, 100 max(cosine, 0)")


def test_wrong_calls(prompts: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "more.jsonl").write_text(json.dumps({"id": "9", "prompts": {"en": "a red apple"}}) + "\n")
    both = prompts.read_text(encoding="utf-8") + (tmp_path / "more.jsonl").read_text()
    (tmp_path / "both.jsonl").write_text(both, encoding="utf-8")
    (tmp_path / "twice.jsonl").write_text(both + both, encoding="utf-8")
    (tmp_path / "form.jsonl").write_text('{"prompts": ["a cat"]}\n')
    (tmp_path / "empty.jsonl").write_text("")
    for arguments, message in (
        (["nowhere.jsonl", str(pictures)], 'a line is {"id": "1", "prompts"'),
        (["more.jsonl", str(pictures)], "has no pictures of these prompts; draw them with --model"),
        (["both.jsonl", str(pictures)], "lacks pictures of 1 prompts, the first is '9' in en"),
        (["twice.jsonl", str(pictures)], "the id 1 is there twice"),
        (["form.jsonl", str(pictures)], 'line 1: a line is {"id": "1", "prompts"'),
        (["empty.jsonl", str(pictures)], "has no prompts"),
        (["both.jsonl", str(pictures), "--languages", "ko"], "has no prompts in ko"),
        (["both.jsonl", str(pictures), "--steps", "0"], "--steps must be 1 or more"),
        (["both.jsonl", str(tmp_path)], "has no pictures of these prompts"),
        (["emoji", str(pictures), "--languages", "xx"], "there are no prompts in xx"),
    ):
        first = arguments[0] if arguments[0] == "emoji" else str(tmp_path / arguments[0])
        code, out, err = run(capsys, first, *arguments[1:])
        assert (code, out) == (2, ""), arguments
        assert message in err
        assert len(err.splitlines()) == 1
