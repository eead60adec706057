import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder, fetch_folder, resolve, resolve_scorer
from altdiffusion_clip.cli import main


def test_emoji_m18_is_a_folder_in_the_package() -> None:
    assert resolve("emoji-m18") == str(emoji_m18_folder())
    assert (emoji_m18_folder() / "model_index.json").is_file()
    assert resolve_scorer("emoji-m18") == (str(emoji_m18_folder()), "scorer")


@pytest.mark.parametrize("name", ["emoji-m9", "emoji-m9/scorer"])
def test_the_model_that_was_in_the_package_before_names_its_successor(name: str, capsys) -> None:
    assert main(["inspect", name]) == main(["generate", "猫", "--model", name]) == 2
    assert main(["rerank", "猫", ".", "--judge", name]) == 2
    assert capsys.readouterr().err.count("use its successor, emoji-m18") == 3


def test_a_folder_of_its_name_is_still_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji-m9").mkdir()
    assert resolve("emoji-m9") == "emoji-m9"


@pytest.mark.parametrize("name", ["BAAI/AltDiffusion-m9", "./folder", Path("folder")])
def test_other_names_stay_as_they_are(name: str | Path) -> None:
    assert resolve(name) == str(name)
    assert resolve_scorer(name) == (str(name), None)


def test_a_folder_with_a_scorer_in_it(tmp_path: Path) -> None:
    (tmp_path / "scorer").mkdir()
    assert resolve_scorer(tmp_path) == (str(tmp_path), None)
    (tmp_path / "scorer" / "config.json").write_text("{}")
    assert resolve_scorer(tmp_path) == (str(tmp_path), "scorer")


def test_a_hub_id_is_read_from_the_hubs_cache(published: Path, tmp_path: Path) -> None:
    """The hub's own layout on disk, so that nothing is fetched."""
    repository = tmp_path / "models--BAAI--AltCLIP-m9"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(published / "alt-clip-m9-tiny", repository / "snapshots" / ("0" * 40))
    hub = {"cache_dir": tmp_path, "local_files_only": True}
    assert (fetch_folder("BAAI/AltCLIP-m9", **hub) / "pytorch_model.bin").is_file()
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
    shared = AltCLIPScorer.from_pipeline(pipe, "BAAI/AltCLIP-m9", **hub)
    alone = AltCLIPScorer.from_pretrained("BAAI/AltCLIP-m9", **hub)
    assert shared.similarity("猫", published / "init.png") == pytest.approx(
        alone.similarity("猫", published / "init.png"), abs=1e-6
    )


def test_a_hub_pipeline_gives_its_scorer_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub of one repository, as huggingface_hub sees it: what is asked for is what is fetched."""
    import huggingface_hub

    files = ["model_index.json", "unet/big.safetensors", "scorer/config.json", "scorer/model.safetensors", "other.bin"]
    fetched: list[str] = []

    def download(repo_id: str, filename: str, **hub: object) -> str:
        if filename not in files:
            raise huggingface_hub.errors.EntryNotFoundError("no such file")
        return fetch([filename])

    def snapshot(repo_id: str, allow_patterns: list[str], ignore_patterns: list[str], **hub: object) -> str:
        from huggingface_hub.utils import filter_repo_objects

        return fetch(filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))

    def fetch(names: Iterable[str]) -> str:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"{}")
            fetched.append(name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch_folder("somebody/pipeline") == tmp_path / "scorer"
    assert set(fetched) == {"scorer/config.json", "scorer/model.safetensors"}

    files.remove("scorer/config.json")
    fetched.clear()
    fetch_folder("somebody/altclip")
    assert set(fetched) == {"model_index.json", "other.bin"}, "nothing of the folders below"


def test_a_place_that_is_none() -> None:
    with pytest.raises(FileNotFoundError, match="not a folder"):
        fetch_folder("./nowhere")
    with pytest.raises(OSError):
        fetch_folder("BAAI/never-fetched", local_files_only=True)
