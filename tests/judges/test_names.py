"""What a user may call a judge, and what they are told where it is none."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from altdiffusion_clip import load_judge, rank
from altdiffusion_clip.cli import main
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.open_clip import OpenCLIPPreprocess
from tests.judges.checkpoints import write_clip
from tests.pictures import held_out_pictures
from tests.test_docs import ROOT, blocks

PICTURES = [picture.path for picture in held_out_pictures()[:8]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in PICTURES:
        shutil.copy(path, folder)
    return folder


def test_a_judge_of_ones_own_by_an_entry_point(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worked example of docs/judges.md, installed as a package."""
    (source,) = (text for file, _, text in blocks(ROOT / "docs" / "judges.md") if file == "aesthetic.py")
    assert len(source.splitlines()) < 60
    (tmp_path / "aesthetic.py").write_text(source)
    info = tmp_path / "aesthetic-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aesthetic\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[altdiffusion.judges]\naesthetic = aesthetic:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    clip = write_clip(tmp_path / "clip")
    head = {"weight": torch.randn(1, 24), "bias": torch.tensor([5.0])}
    save_file(head, tmp_path / "head.safetensors")
    name = f"aesthetic:{clip}@{tmp_path / 'head.safetensors'}"
    assert main(["rerank", "x", str(pictures), "--judge", name, "--json", "--no-cache"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    judge = load_judge(str(clip))
    for row in rows:
        inputs = judge.preprocess(Image.open(row["file"]).convert("RGB"))
        vector = judge.picture_features({key: torch.from_numpy(value)[None] for key, value in inputs.items()})[0]
        assert row["score"] == pytest.approx(float(vector @ head["weight"][0] + 5.0), abs=1e-5)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    with pytest.raises(UserError, match="there is no judge 'aestetic:x'; did you mean aesthetic"):
        load_judge("aestetic:x")


def test_what_is_named_twice_is_loaded_once() -> None:
    panel = load_panel(["emoji-m18", "teacher=emoji-m18/teacher", "logits:emoji-m18,emoji-m18/teacher"])
    assert len(panel.members) == 2
    assert [column.name for column in panel.columns] == [
        "emoji-m18",
        "teacher",
        "logits:emoji-m18,emoji-m18/teacher",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emoji-m8", "there is no judge 'emoji-m8'; did you mean emoji-m18?"),
        ("open_clp:ViT-B-32@laion2b", "did you mean open_clip:"),
        ("zscore:emoji-m18,emoji-m18/teacher", "did you mean zscores:"),
        ("python:nothing", "python:nothing names no function"),
        ("python:no_such_module:f", "No module named 'no_such_module'"),
        ("python:{tmp}/none.py:f", "there is no {tmp}/none.py"),
        ("python:{tmp}/mine.py:g", "has no attribute 'g'"),
        ("python:{tmp}/mine.py:NUMBER", "NUMBER in {tmp}/mine.py is a int, not a function"),
        ("python:{tmp}/broken.py:f", "cannot load python:{tmp}/broken.py:f"),
        ("ranks:emoji-m18", "ranks makes one score of several judges; name two or more"),
        ("logits:emoji-m18,python:{tmp}/mine.py:good", "gives no cosines, so it has no logits; take zscores or ranks"),
        ("zscores:emoji-m18,ranks:emoji-m18,x", "name two or more"),
    ],
)
def test_bad_names_are_one_line(name: str, message: str, tmp_path: Path, pictures: Path, capsys) -> None:
    (tmp_path / "mine.py").write_text("NUMBER = 1\ndef good(texts, pictures):\n    return [0.0] * len(texts)\n")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert main(["rerank", "a cat", str(pictures), "--judge", name.format(tmp=tmp_path), "--no-cache"]) == 2
    err = capsys.readouterr().err
    assert any(part in err for part in message.format(tmp=tmp_path).split("|")), err
    assert err.count("\n") == 1


class TestFunctions:
    """What a function of the user's may do wrong."""

    def test_not_a_number_is_no_score(self, pictures: Path) -> None:
        def judge(texts: list[str], given: list[Image.Image]) -> list[float]:
            return [float("nan") if place == 2 else place for place, _ in enumerate(given)]

        ranking = rank("x", PICTURES[:4], judge)
        assert [image.index for image in ranking] == [3, 1, 0]
        assert [str(image) for image in ranking.broken] == [f"{PICTURES[2]}: the score is not a number"]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([1.0], r"gave the shape \(1,\) for 4 pictures; give one number for each"),
            ([[1.0]] * 4, r"gave the shape \(4, 1\) for 4 pictures"),
            (["a"] * 4, "the judge answer fails: ValueError"),
            (None, "gave the shape|fails"),
        ],
    )
    def test_a_wrong_answer_is_one_line(self, given: object, message: str) -> None:
        def answer(texts: list[str], pictures: list[Image.Image]) -> object:
            return given

        with pytest.raises(UserError, match=message):
            rank("x", PICTURES[:4], answer)

    def test_what_it_raises_is_one_line(self) -> None:
        def answer(texts: list[str], pictures: list[Image.Image]) -> object:
            raise KeyError("nothing\nthere")

        with pytest.raises(UserError, match=r"^the judge answer fails: KeyError: 'nothing.*there'$"):
            rank("x", PICTURES[:4], answer)

    def test_it_sees_rgb_pictures_in_full_size(self, tmp_path: Path) -> None:
        Image.new("RGBA", (300, 200), (255, 0, 0, 0)).save(tmp_path / "a.png")
        seen = []

        def judge(texts: list[str], pictures: list[Image.Image]) -> list[float]:
            seen.extend(
                (text, each.mode, each.size, each.getpixel((0, 0))) for text, each in zip(texts, pictures, strict=True)
            )
            return [1.0] * len(pictures)

        rank("x", [tmp_path / "a.png"], judge)
        assert seen == [("x", "RGB", (300, 200), (255, 255, 255))]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("score {rows} --output {tmp}/o --judge zscores:emoji-m18,emoji-m18/teacher", "scored alone, so take logits"),
        ("score {rows} --output {tmp}/o --judge {mine} --min-cosine 0.3", "gives no cosines"),
        ("score {rows} --output {tmp}/o --judge {mine} --embeddings", "gives none"),
        ("embed {tmp} --output {tmp}/a.npz --judge {mine}", "gives scores, but no vectors"),
        ("embed {tmp} --output {tmp}/a.npz --judge emoji-m18 --judge emoji-m18/teacher", "not of 2"),
        ("rerank x {tmp} --judge emoji-m18 --judge emoji-m18", "two judges are called emoji-m18"),
        ("evaluate zeroshot {classes} --judge {mine}", "gives scores, but no vectors"),
        ("generate x --model {model} --judge own --output {tmp}/o", "has no judge of its own"),
    ],
)
def test_where_a_judge_does_not_do(
    command: str, message: str, tmp_path: Path, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def good(texts, pictures):\n    return [0.0] * len(texts)\n")
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    shutil.copy(PICTURES[0], tmp_path / "classes" / "cat")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": str(PICTURES[0]), "text": "x"}) + "\n")
    places = {"rows": tmp_path / "rows.jsonl", "tmp": tmp_path, "mine": f"python:{tmp_path / 'mine.py'}:good"}
    places |= {"classes": tmp_path / "classes", "model": published / "alt-diffusion-m9-tiny"}
    assert main(command.format(**places).split()) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert message in err


def test_preparations_of_open_clip_are_told_apart_by_what_they_do() -> None:
    one, same, other = (OpenCLIPPreprocess(name, 32, object()) for name in ("a", "a", "b"))
    assert one == same != other
    assert len({one, same, other}) == 2
