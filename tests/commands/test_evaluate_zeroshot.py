import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from altdiffusion_clip.cli import main
from altdiffusion_clip.emoji.concepts import concepts
from tests.pictures import held_out_pictures

CONCEPTS = concepts()[:6]
PICTURES = [picture for picture in held_out_pictures() if picture.concept in CONCEPTS]


def name_of(concept) -> str:
    return concept.names["en"].replace(" ", "_")


def write_folders(folder: Path) -> list[str]:
    for picture in PICTURES:
        place = folder / name_of(picture.concept)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture.path, place)
    return sorted(name_of(concept) for concept in CONCEPTS)


def write_names(folder: Path, order: list[str], language: str) -> None:
    of = {name_of(concept): concept.names[language] for concept in CONCEPTS}
    (folder / f"classnames_{language}.txt").write_text("\n".join(of[name] for name in order) + "\n", encoding="utf-8")


def write_parquet(folder: Path, names: list[str], with_names: bool = True) -> None:
    import pyarrow
    import pyarrow.parquet

    cells = [{"bytes": picture.path.read_bytes(), "path": None} for picture in PICTURES]
    labels = [names.index(name_of(picture.concept)) for picture in PICTURES]
    table = pyarrow.table({"img": cells, "label": labels})
    if with_names:
        features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "plain_text").mkdir(parents=True)
    pyarrow.parquet.write_table(table, folder / "plain_text" / "test-00000-of-00001.parquet", row_group_size=7)


def write_tars(folder: Path, names: list[str]) -> None:
    (folder / "test").mkdir(parents=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number, picture in enumerate(PICTURES):
            label = str(names.index(name_of(picture.concept))).encode()
            for ending, data in (("png", picture.path.read_bytes()), ("cls", label)):
                info = tarfile.TarInfo(f"s{number:07d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "classnames.txt").write_text("\n".join(name.replace("_", " ") for name in names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a picture of a {c}\n{c}\n")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["evaluate", "zeroshot", *arguments, "--no-cache"])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def test_three_layouts_give_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_folders(tmp_path / "folders")
    write_parquet(tmp_path / "parquet", names)
    write_tars(tmp_path / "tars", names)
    templates = tmp_path / "templates.txt"
    templates.write_text("a picture of a {c}\n{c}\n")
    figures = []
    for layout in ("folders", "parquet", "tars"):
        code, out, _ = run(
            capsys, str(tmp_path / layout), "--judge", "emoji-m18", "--json", "--templates", str(templates)
        )
        assert code == 0
        row = json.loads(out)
        assert (row["images"], row["classes"], row["unit"]) == (24, 6, "percent")
        figures.append({key: row[key] for key in ("top1", "top5", "mean_per_class_recall")})
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["top1"] > 90


def test_two_languages_two_systems_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_folders(tmp_path / "set")
    write_names(tmp_path / "set", names, "zh")
    page, report = tmp_path / "page.html", tmp_path / "report.json"
    command = [str(tmp_path / "set"), "--languages", "en", "zh", "--judge", "emoji-m18", "--judge", "emoji-m18/teacher"]
    code, out, _ = run(capsys, *command, "--html", str(page), "--output", str(report))
    assert code == 0
    assert "zero-shot classification, percent" in out
    rows = {(row["system"], row["language"]): row["top1"] for row in json.loads(report.read_text())}
    assert rows["emoji-m18", "zh"] > 90
    assert rows["emoji-m18/teacher", "zh"] < 50
    html = page.read_text(encoding="utf-8")
    assert 'class="plot"' in html
    assert "taken for" in html


def test_cifar10_is_known_in_chinese(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from altdiffusion_clip.evaluation.datasets.classification import class_names, read_classification
    from altdiffusion_clip.evaluation.zeroshot import CIFAR10

    for name in CIFAR10["en"]:
        (tmp_path / name).mkdir()
        shutil.copy(PICTURES[0].path, tmp_path / name)
    task = read_classification(tmp_path)
    assert class_names(task, "zh") == list(CIFAR10["zh"])
    assert class_names(task, "en") == list(CIFAR10["en"])


def test_the_other_name_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folders(tmp_path)
    assert main(["evaluate", "classification", str(tmp_path), "--json", "--no-cache"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == 6


def test_broken_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folders(tmp_path)
    broken = next((tmp_path / "cat").iterdir())
    broken.write_bytes(b"")
    code, out, err = run(capsys, str(tmp_path), "--json")
    assert (code, out) == (2, "")
    assert "1 of 24 images cannot be read" in err
    code, out, err = run(capsys, str(tmp_path), "--json", "--allow-missing")
    assert code == 1
    assert json.loads(out)["images"] == 23
    assert f"skipped {broken}: an empty file" in err


def test_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_folders(tmp_path / "set")
    write_names(tmp_path / "set", names[:4], "zh")
    (tmp_path / "empty").mkdir()
    write_parquet(tmp_path / "parquet", names, with_names=False)
    write_tars(tmp_path / "tars", names)
    (tmp_path / "bad.txt").write_text("a photo\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "test.parquet").write_bytes(b"PAR1 no")
    for arguments, message in (
        (["set", "--languages", "zh"], "there are 6 classes and 4 names in zh"),
        (["set", "--languages", "ko"], "has no names of its classes in ko; write one a line to classnames_ko.txt"),
        (["set", "--templates", "bad.txt"], "a template must say where the name goes"),
        (["set", "--classes", "none.txt"], "write a class name a line"),
        (["set", "--languages", "en", "zh", "--classes", "bad.txt"], "are of one language"),
        (["empty"], "has no labelled pictures; a folder of pictures for each class"),
        (["nowhere"], "there is no folder"),
        (["parquet"], "has no names of its classes in en"),
        (["damaged"], "cannot be read"),
        (["set", "--output", "x.csv"], "the name must end in .json"),
    ):
        given = [str(tmp_path / a) if (tmp_path / a).exists() or a in ("nowhere", "none.txt") else a for a in arguments]
        code, out, err = run(capsys, *given)
        assert (code, out) == (2, ""), arguments
        assert message in err
        assert len(err.splitlines()) == 1


def test_hidden_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    cells = [{"bytes": PICTURES[0].path.read_bytes(), "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": [-1]}), tmp_path / "test.parquet")
    code, _, err = run(capsys, str(tmp_path))
    assert code == 2
    assert "the label is -1; labels begin with 0" in err
