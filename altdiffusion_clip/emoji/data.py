"""Writes the emoji world as training data: pictures with captions, and parallel sentences."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from altdiffusion_clip.emoji.captions import captions, scene_captions
from altdiffusion_clip.emoji.concepts import (
    LANGUAGES,
    Colour,
    Concept,
    colours,
    concepts,
    is_held_out,
    is_pair_held_out,
)
from altdiffusion_clip.emoji.renders import SCENE_PLACEMENTS, TRAIN_PLACEMENTS, render, render_scene
from altdiffusion_clip.files import atomic_folder
from altdiffusion_clip.training.data.captioned import CAPTIONS_FILE

PICTURES_PER_PAIR = 20
"""Pictures of each concept on each background, with different sizes and positions."""

SCENES_PER_PAIR = 3
"""Pictures of each pair of concepts in `write_scenes`, on different backgrounds."""

PARALLEL_FILE = "parallel.jsonl"


def known_pairs() -> list[tuple[Concept, Colour]]:
    """Every concept with every background that is not held out."""
    return [(concept, colour) for concept in concepts() for colour in colours() if not is_held_out(concept, colour)]


def known_scenes() -> list[tuple[Concept, Concept, Colour]]:
    """Every pair of concepts that is not held out, each on one background.

    The background is known for the concept on the left. For the one on the right it may be held out.
    """
    generator = random.Random(1)
    return [
        (left, right, generator.choice([c for c in colours() if not is_held_out(left, c)]))
        for left in concepts()
        for right in concepts()
        if left != right and not is_pair_held_out(left, right)
    ]


def write_data(folder: Path, languages: Sequence[str] = LANGUAGES, style: str = "plain", scenes: bool = True) -> Path:
    """Draws the pictures of the emoji world, and writes captions and parallel sentences, unless they exist.

    Held-out pairs appear in neither pictures nor sentences, or they would not be unseen.

    Args:
        folder: for `pictures/`, `captions.jsonl` and `parallel.jsonl`; written completely or not at all.
        languages: of the captions.
        style: of the pictures, "plain" or "outlined".
        scenes: also draw two concepts beside each other.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: Noto Color Emoji is not installed.
    """
    if (folder / CAPTIONS_FILE).is_file():
        return folder
    with atomic_folder(folder) as temporary:
        _write_pictures(temporary, _pictures(languages, style, scenes))
        write_parallel(temporary / PARALLEL_FILE, languages, scenes)
    return folder


def write_scenes(folder: Path, languages: Sequence[str] = LANGUAGES) -> Path:
    """Draws more scenes with captions that name the left thing first, unless they exist.

    The captions of `write_data` name the two things in either order, as people do. From that, a small UNet does not
    learn which thing belongs in which half, and mixes them.

    Args:
        folder: for `pictures/` and `captions.jsonl`; written completely or not at all.
        languages: of the captions.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: Noto Color Emoji is not installed.
    """
    if (folder / CAPTIONS_FILE).is_file():
        return folder
    with atomic_folder(folder) as temporary:
        _write_pictures(temporary, _left_first_scenes(languages))
    return folder


def write_parallel(path: Path, languages: Sequence[str], scenes: bool = True) -> None:
    """Writes parallel sentences, one meaning per line, with all captions of each language."""
    with path.open("w", encoding="utf-8") as file:
        for said in _meanings(languages, scenes):
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def sentences(languages: Sequence[str], scenes: bool = True) -> list[str]:
    """Every sentence of the training data in some languages."""
    return [sentence for said in _meanings(languages, scenes) for code in languages for sentence in said[code]]


def shown_in_pictures() -> list[tuple[Concept, ...]]:
    """The contents of each picture of `write_data`: one concept, or the left and the right one."""
    alone = [(concept,) for concept, _ in known_pairs() for _ in range(PICTURES_PER_PAIR)]
    return [*alone, *((left, right) for left, right, _ in known_scenes())]


Captioned = tuple[Image.Image, dict[str, list[str]]]
"""A picture, and its captions in each language."""


def _write_pictures(folder: Path, captioned: Iterable[Captioned]) -> None:
    (folder / "pictures").mkdir()
    with (folder / CAPTIONS_FILE).open("w", encoding="utf-8") as file:
        for number, (picture, said) in enumerate(tqdm(captioned, desc="drawing", unit="")):
            name = f"pictures/{number:06d}.png"
            picture.save(folder / name)
            file.write(json.dumps({"image": name, "captions": said}, ensure_ascii=False) + "\n")


def _pictures(languages: Sequence[str], style: str, scenes: bool) -> Iterator[Captioned]:
    generator = random.Random(0)
    for concept, colour in known_pairs():
        said = {code: [*captions(concept, colour, code), *captions(concept, None, code)] for code in languages}
        for placement in generator.sample(TRAIN_PLACEMENTS, PICTURES_PER_PAIR):
            yield render(concept, colour, placement, style), said
    for left, right, colour in known_scenes() if scenes else ():
        said = {
            code: [*scene_captions(left, right, colour, code), *scene_captions(left, right, None, code)]
            for code in languages
        }
        placements = generator.choice(SCENE_PLACEMENTS), generator.choice(SCENE_PLACEMENTS)
        yield render_scene(left, right, colour, placements, style), said


def _left_first_scenes(languages: Sequence[str]) -> Iterator[Captioned]:
    generator = random.Random(2)
    for left, right, _ in known_scenes() * SCENES_PER_PAIR:
        colour = generator.choice([c for c in colours() if not is_held_out(left, c) and not is_held_out(right, c)])
        placements = generator.choice(SCENE_PLACEMENTS), generator.choice(SCENE_PLACEMENTS)
        said = {
            code: [scene_captions(left, right, c, code)[way] for c in (colour, None) for way in (0, 2)]
            for code in languages
        }
        yield render_scene(left, right, colour, placements), said


def _meanings(languages: Sequence[str], scenes: bool) -> Iterator[dict[str, list[str]]]:
    codes = ["en", *(code for code in languages if code != "en")]
    for concept in concepts():
        yield {code: captions(concept, None, code) for code in codes}
    for concept, colour in known_pairs():
        yield {code: captions(concept, colour, code) for code in codes}
    for left, right, colour in known_scenes() if scenes else ():
        # One meaning per line: either order without positions, and with positions.
        for number, said_with in enumerate((None, None, colour, colour, colour)):
            yield {code: [scene_captions(left, right, said_with, code)[number % 3]] for code in codes}
