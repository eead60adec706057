"""The small files beside the weights: configurations and tokenizer."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from altdiffusion_clip.checkpoints.architectures import CONFIGS
from altdiffusion_clip.checkpoints.layouts import Checkpoint, Layout, embedded_file, read_json
from altdiffusion_clip.checkpoints.model_ids import SCORER, looks_local, resolve
from altdiffusion_clip.errors import CheckpointError

VOCABULARIES = ("sentencepiece.bpe.model", "tokenizer.json")
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json", "special_tokens_map.json")

_SMALL = (".json", ".txt", ".model", ".md")

# Repositories with the tokenizer of all published AltDiffusions, in case one is in the hub's cache.
_SAME_TOKENIZER = (
    ("BAAI/AltDiffusion-m9", "tokenizer/"),
    ("BAAI/AltDiffusion-m18", "tokenizer/"),
    ("BAAI/AltDiffusion", "tokenizer/"),
    ("BAAI/AltCLIP-m9", ""),
    ("BAAI/AltCLIP-m18", ""),
    ("BAAI/AltCLIP", ""),
    ("FacebookAI/xlm-roberta-large", ""),
    ("xlm-roberta-large", ""),
)


def write_companions(
    checkpoint: Checkpoint, destination: Path, tokenizer: str | os.PathLike[str] | None = None, **hub: Any
) -> None:
    """Writes a checkpoint's configurations and tokenizer in the layout of a folder.

    Args:
        checkpoint: of any layout.
        destination: an existing folder.
        tokenizer: a folder or hub id with the tokenizer, in case a single file has none.
        **hub: for the hub id.

    Raises:
        CheckpointError: a single file has no tokenizer, and none was found.
    """
    if not checkpoint.is_single_file:
        _copy_small_files(checkpoint.path, destination)
        if checkpoint.layout is Layout.DIFFUSERS:
            _modernise_index(destination, without=())
        return
    if checkpoint.config_folder is not None:
        _copy_small_files(checkpoint.config_folder, destination)
    for name, text in checkpoint.embedded.items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (destination / name).write_text(text, encoding="utf-8")
    # Single files have no weights for these.
    for part in ("safety_checker", "image_encoder"):
        shutil.rmtree(destination / part, ignore_errors=True)
    _modernise_index(destination, without=("safety_checker", "image_encoder"))
    _write_tokenizer(checkpoint, destination / "tokenizer", tokenizer, hub)
    if checkpoint.layout is Layout.FLAGAI:
        for name in TOKENIZER_FILES:
            if (destination / "tokenizer" / name).is_file():
                shutil.copy(destination / "tokenizer" / name, destination / SCORER / name)
    else:
        shutil.rmtree(destination / SCORER, ignore_errors=True)


def small_files(folder: Path) -> dict[str, Path]:
    """The files of a model's folder that are neither weights nor indices, by relative path.

    Of its subfolders, only the components in model_index.json and the scorer count.
    """
    index = folder / "model_index.json"
    components = [name for name in read_json(index) if not name.startswith("_")] if index.is_file() else []
    return {
        path.relative_to(folder).as_posix(): path
        for place in (folder, *(folder / name for name in (*components, SCORER) if index.is_file()))
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.is_file() and path.suffix in _SMALL and ".index." not in path.name and not path.name.startswith(".")
    }


def _copy_small_files(source: Path, destination: Path) -> None:
    for name, path in small_files(source).items():
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination / name)


def _modernise_index(folder: Path, without: tuple[str, ...]) -> None:
    """Renames classes that today's libraries no longer have, and removes missing components."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8").replace("CLIPFeatureExtractor", "CLIPImageProcessor"))
    for part in without:
        if part in index:
            index[part] = [None, None]
            index["requires_safety_checker"] = False
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tokenizer(
    checkpoint: Checkpoint, folder: Path, given: str | os.PathLike[str] | None, hub: dict[str, Any]
) -> None:
    folder.mkdir(exist_ok=True)
    if given is None and any((folder / name).is_file() for name in VOCABULARIES):
        return  # copied from the folder of configurations
    if given is None:
        for name in VOCABULARIES:
            content = embedded_file(checkpoint.path, name)
            if content is not None:
                (folder / name).write_bytes(content)
                return
    source = _given_tokenizer(given, hub) if given is not None else _known_tokenizer(checkpoint)
    if source is None:
        raise CheckpointError(
            f"{checkpoint.path} holds no tokenizer; put sentencepiece.bpe.model beside it, or name a folder or hub id "
            'that has it, such as "BAAI/AltDiffusion-m9" (tokenizer=, --tokenizer)'
        )
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _known_tokenizer(checkpoint: Checkpoint) -> Path | None:
    """Finds a folder with the tokenizer, beside the file or in the hub's cache. Nothing is downloaded."""
    beside = checkpoint.path.parent
    for folder in (beside, beside / "tokenizer"):
        if any((folder / name).is_file() for name in VOCABULARIES):
            return folder
    if checkpoint.config_folder is None or checkpoint.config_folder.parent != CONFIGS:
        return None  # another size, so it does not use the published vocabulary
    from huggingface_hub import try_to_load_from_cache

    for repository, subfolder in _SAME_TOKENIZER:
        for name in VOCABULARIES:
            cached = try_to_load_from_cache(repository, subfolder + name)
            if isinstance(cached, str):
                return Path(cached).parent
    return None


def _given_tokenizer(given: str | os.PathLike[str], hub: dict[str, Any]) -> Path:
    place = resolve(given)
    root = Path(place).expanduser()
    if not root.is_dir():
        if looks_local(place):
            raise CheckpointError(f"there is no folder {place} to take the tokenizer from")
        from huggingface_hub import snapshot_download

        root = Path(snapshot_download(place, allow_patterns=[f"*{name}" for name in TOKENIZER_FILES], **hub))
    for folder in (root, root / "tokenizer"):
        if any((folder / name).is_file() for name in VOCABULARIES):
            return folder
    raise CheckpointError(f"{given} has no tokenizer: neither {' nor '.join(VOCABULARIES)}")
