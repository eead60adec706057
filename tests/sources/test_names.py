"""Sources as they are named."""

from pathlib import Path

import pytest

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.names import check_protocols, expand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tar", "a.tar", "c.jsonl", "notes.md", "odd[1].tar"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.tar", ["a.tar", "b.tar", "odd[1].tar"]),
        ("*", ["a.tar", "b.tar", "c.jsonl", "odd[1].tar"]),
        ("?.tar", ["a.tar", "b.tar"]),
        ("{b,a}.tar", ["b.tar", "a.tar"]),
        ("odd[1].tar", ["odd[1].tar"]),
        ("{c,d}.jsonl", ["c.jsonl", "d.jsonl"]),
    ],
)
def test_patterns(folder: Path, pattern: str, found: list[str]) -> None:
    assert expand([str(folder / pattern)]) == [str(folder / name) for name in found]


def test_each_is_named_once(folder: Path) -> None:
    names = [str(folder / "a.tar"), str(folder / "*.tar"), f"file://{folder}/a.tar"]
    assert expand(names) == [str(folder / name) for name in ("a.tar", "b.tar", "odd[1].tar")]


def test_a_list_of_names(folder: Path) -> None:
    (folder / "list.txt").write_text(f"# ours\n{folder}/b.tar\n\n{folder}/?.tar\ns3://bucket/{{08..10}}.tar\n")
    found = expand([f"@{folder}/list.txt"])
    assert found[:2] == [str(folder / "b.tar"), str(folder / "a.tar")]
    assert found[2:] == ["s3://bucket/08.tar", "s3://bucket/09.tar", "s3://bucket/10.tar"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("{tmp}/*.parquet", "stands for no file that can be read"), ("@{tmp}/none.txt", "cannot read the list")],
)
def test_mistakes(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expand([name.format(tmp=folder)])


def test_a_protocol_that_is_unknown_is_told_at_the_start() -> None:
    check_protocols(["/a/b.tar", "memory://a/b.tar", "file:///a.tar"])
    with pytest.raises(UserError, match=r"cannot reach nosuch:// \(Protocol not known: nosuch\)"):
        check_protocols(["nosuch://a/b.tar"])
