import json
from pathlib import Path

import numpy as np
import pytest

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.cli import main
from altdiffusion_clip.judges.embedding_files import SUFFIXES
from tests.conftest import in_full
from tests.evaluation.datasets import replicas

# ---------------------------------------------------------------- retrieval


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_retrieval_of_two_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, report = tmp_path / "report.html", tmp_path / "report.json"
    command = ["evaluate", "retrieval", "emoji", "--judge", "ours=emoji-m18", "--judge", "emoji-m18/teacher"]
    options = ["--languages", "en", "zh", "--cache", str(tmp_path), "--output", str(report), "--html", str(page)]
    code, out, _ = run(capsys, *command, *options)
    assert code == 0
    assert "emoji held-out, zh: 400 texts, 400 images, percent" in out
    rows = {(row["system"], row["language"]): row for row in json.loads(report.read_text())["measured"]}
    assert set(rows) == {(system, code) for system in ("ours", "emoji-m18/teacher") for code in ("en", "zh")}
    assert rows["ours", "zh"]["mr"] > 90 > 10 > rows["emoji-m18/teacher", "zh"]["mr"]
    low, high = rows["ours", "zh"]["interval_95"]["mr"]
    assert low <= rows["ours", "zh"]["mr"] <= high
    html = page.read_text(encoding="utf-8")
    assert html.count('class="plot"') == 2
    assert "texts whose image was not the first" in html
    assert "背景" in html  # a Chinese text that the English teacher fails on
    assert "http" not in html.replace("http-equiv", "")  # one file, which loads nothing

    again, out, err = run(capsys, *command, *options, "--json")
    assert again == 0
    assert [json.loads(line)["mr"] for line in out.splitlines()] == [row["mr"] for row in rows.values()]
    assert "%|" not in out
    assert not err


def test_published_figures_stand_beside_the_measured_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = replicas.write_muge(tmp_path / "MUGE")
    command = ["evaluate", "retrieval", "muge", str(folder), "--judge", "CN-CLIP ViT-B/16=emoji-m18", "--no-cache"]
    code, out, _ = run(capsys, *command)
    assert code == 0
    lines = out.splitlines()
    difference = next(line for line in lines if "minus CN-CLIP ViT-B/16" in line)
    measured = next(line for line in lines if line.lstrip().startswith("CN-CLIP ViT-B/16"))
    r1 = float(measured.split("ViT-B/16")[1].split()[0])
    assert f"{r1 - 52.1:+.1f}" in difference
    assert any("R2D2" in line and "49.5" in line and "published" in line for line in lines)


def test_images_that_are_left_out_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = replicas.write_jsonl(tmp_path / "set")
    first, second = sorted((folder / "pictures").iterdir())[:2]
    first.unlink()
    second.write_bytes(b"no picture")
    command = ["evaluate", "retrieval", "jsonl", str(folder), "--no-cache"]
    code, out, err = run(capsys, *command)
    assert (code, out) == (2, "")
    assert "1 of 180 images are not there" in err
    code, _, err = run(capsys, *command, "--allow-missing")
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("skipped")] == [
        f"skipped {first}: no such file",
        f"skipped {second}: not a picture that Pillow knows",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("emojis", "no data set 'emojis'; there are emoji, flickr30k"),
        ("muge", "muge is not in the package; say where its folder is"),
        ("flickr30k {tmp}", "has no captions of Flickr30k's test split; Flickr30k's pictures are given out at"),
        ("emoji --judge {tmp}", "has no model_index.json and no config.json"),
        ("emoji --languages ko de fi", "there are no captions in fi"),
        ("emoji --output report.txt", "the name must end in .json"),
        ("emoji --batch-size 0", "--batch-size must be 1 or more"),
        ("emoji --judge {tmp}/a.npz", "there is no"),
    ],
)
def test_wrong_calls_of_retrieval(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "evaluate", "retrieval", *arguments.format(tmp=tmp_path).split(), "--no-cache")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


# ---------------------------------------------------------------- embed


@pytest.mark.parametrize("suffix", [SUFFIXES[0], *in_full(*SUFFIXES[1:])])
def test_what_embed_writes_is_measured_as_the_system_itself(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"embeddings{suffix}"
    folder = str(replicas.write_jsonl(tmp_path / "set"))
    cache = ["--cache", str(tmp_path)]
    source = ["--dataset", "jsonl", "--folder", folder]
    code, out, _ = run(capsys, "embed", *source, "--judge", "emoji-m18", "--output", str(file), "--json", *cache)
    assert code == 0
    summary = json.loads(out)
    assert (summary["images"], summary["texts"], summary["width"]) == (180, 360, 192)
    assert summary["temperature"] == pytest.approx(1 / summary["logit_scale"], rel=1e-3)
    command = ["evaluate", "retrieval", "jsonl", folder, "--judge", "emoji-m18", "--judge", str(file), "--json", *cache]
    _, out, _ = run(capsys, *command)
    rows = [json.loads(line) for line in out.splitlines()]
    own, stored = rows[:2], rows[2:]
    assert len(own) == len(stored)
    assert [row["mr"] for row in own] == [row["mr"] for row in stored]


def test_embed_names_pictures_by_their_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [str(picture.path) for picture in replicas.PICTURES[:3]]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    texts = tmp_path / "texts.txt"
    texts.write_text("猫\n\na dog\n", encoding="utf-8")
    file = tmp_path / "a.npz"
    command = ["embed", *pictures, str(broken), "--texts", "a dog", "خنزير", "--texts-file", str(texts)]
    code, out, err = run(capsys, *command, "--judge", "emoji-m18", "--output", str(file), "--no-cache")
    assert code == 1
    assert f"skipped {broken}: an empty file" in err
    assert "3 pictures and 3 texts, unit vectors of 192 numbers, temperature" in out
    stored = np.load(file, allow_pickle=False)
    assert stored["images"].tolist() == pictures
    assert stored["texts"].tolist() == ["a dog", "خنزير", "猫"]
    scorer = AltCLIPScorer.from_pretrained("emoji-m18").eval()
    cosines = stored["text_embedding"] @ stored["img_embedding"].T
    expected = scorer.similarity(stored["texts"].tolist(), pictures).numpy()
    np.testing.assert_allclose(cosines, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output a.npz", "nothing to embed"),
        ("--texts x --output a.csv", "the name must end in .npz, .safetensors, .parquet"),
        ("--texts x --output a.npz --model {tmp}", "has no model_index.json and no config.json"),
        ("--texts-file {tmp}/none.txt --output a.npz", "cannot be read: No such file"),
    ],
)
def test_wrong_calls_of_embed(arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "embed", *arguments.format(tmp=tmp_path).split(), "--no-cache")
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "a.npz").exists()
