"""How well drawn pictures fit their prompts in each language, as MG-18 measures it (AltDiffusion, arXiv 2308.09991).

The same scenes are asked for in several languages. A picture is compared with the prompt that it was drawn from, and
with the English prompt of its scene, by any CLIP; the gap of a language is English's mean less its own, on the English
prompts, so that it says what was drawn and not how well the CLIP reads the language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import LANGUAGES
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.cache import EmbeddingCache
from altdiffusion_clip.evaluation.datasets.stored import ImageFile
from altdiffusion_clip.evaluation.datasets.text_files import json_lines
from altdiffusion_clip.evaluation.emoji import pairs
from altdiffusion_clip.evaluation.encoding import encode_images, encode_texts
from altdiffusion_clip.evaluation.systems.base import System

ENGLISH = "en"
RESAMPLES = 1000


@dataclass(frozen=True)
class Scene:
    """Something to be drawn, said in several languages."""

    key: str
    prompts: Mapping[str, str]


@dataclass(frozen=True)
class Drawn:
    """A picture and what it was drawn from."""

    file: Path
    scene: Scene
    language: str


def read_scenes(path: Path, languages: Sequence[str] = ()) -> list[Scene]:
    """Reads scenes: a JSON object a line, as {"id": "1", "prompts": {"en": "a cat", "zh": "猫"}}.

    Args:
        path: the file.
        languages: to keep; all if empty.

    Raises:
        UserError: a line is of another form, an id is there twice, or a language is empty.
    """
    if not path.is_file():
        raise UserError(f'there is no {path}; a line is {{"id": "1", "prompts": {{"en": "a cat", "zh": "猫"}}}}')
    scenes: dict[str, Scene] = {}
    for number, row in json_lines(path):
        prompts = row.get("prompts")
        if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
            raise UserError(f'{path}, line {number}: a line is {{"id": "1", "prompts": {{"en": "a cat", "zh": "猫"}}}}')
        key = str(row.get("id", number))
        if key in scenes:
            raise UserError(f"{path}, line {number}: the id {key} is there twice")
        kept = {code: text.strip() for code, text in prompts.items() if code in (languages or prompts) and text.strip()}
        scenes[key] = Scene(key, kept)
    for code in languages:
        if not any(code in scene.prompts for scene in scenes.values()):
            raise UserError(f"{path} has no prompts in {code}")
    if not any(scene.prompts for scene in scenes.values()):
        raise UserError(f"{path} has no prompts")
    return list(scenes.values())


def emoji_scenes(count: int, languages: Sequence[str] = ()) -> list[Scene]:
    """Things on backgrounds that no stage of emoji-m9 has seen, in its nine languages."""
    return [
        Scene(
            f"{concept.names[ENGLISH]} on {colour.name}",
            {code: captions(concept, colour, code)[0] for code in LANGUAGES if code in (languages or LANGUAGES)},
        )
        for concept, colour in pairs(unseen=True)[:count]
    ]


def match(rows: Sequence[dict[str, Any]], folder: Path, scenes: Sequence[Scene]) -> list[Drawn]:
    """The pictures of a `results.jsonl` that were drawn from the scenes' prompts.

    A prompt that reads the same in two languages counts in both.

    Raises:
        UserError: there are none, or a scene's prompt in some language was not drawn.
    """
    of_prompt: dict[str, list[tuple[Scene, str]]] = {}
    for scene in scenes:
        for code, text in scene.prompts.items():
            of_prompt.setdefault(text, []).append((scene, code))
    drawn = [
        Drawn(folder / row["file"], scene, code) for row in rows for scene, code in of_prompt.get(row["prompt"], ())
    ]
    if not drawn:
        raise UserError(f"{folder} has no pictures of these prompts; draw them with --model")
    seen = {(picture.scene.key, picture.language) for picture in drawn}
    lacking = [(s.key, code) for s in scenes for code in s.prompts if (s.key, code) not in seen]
    if lacking:
        key, code = lacking[0]
        raise UserError(
            f"{folder} lacks pictures of {len(lacking)} prompts, the first is {key!r} in {code}; draw them with --model"
        )
    return drawn


@dataclass(frozen=True)
class GenerationResult:
    """A system's view of one language.

    Attributes:
        language: code.
        pictures: how many.
        clip_score: mean of 100 · max(cosine, 0) of pictures and their own prompts.
        clip_score_english: the same with the English prompt of the scene; None if there is none.
        gap: English's `clip_score_english` on the same scenes less this language's; None without English.
        interval_95: of `gap` if there is one, else of `clip_score`; by bootstrap over the scenes.
    """

    language: str
    pictures: int
    clip_score: float
    clip_score_english: float | None
    gap: float | None
    interval_95: tuple[float, float]


def evaluate_generation(system: System, drawn: Sequence[Drawn], cache: EmbeddingCache) -> list[GenerationResult]:
    """Measures every language.

    Raises:
        UserError: a picture cannot be read.
    """
    encoded = encode_images(system, [ImageFile(picture.file) for picture in drawn], cache)
    if encoded.broken:
        _, name, reason = encoded.broken[0]
        raise UserError(f"{len(encoded.broken)} pictures cannot be read, the first is {name}: {reason}")
    own = 100 * _cosines(system, encoded.vectors, [p.scene.prompts[p.language] for p in drawn], cache).clip(0)
    english = np.full(len(drawn), np.nan)
    has = [place for place, picture in enumerate(drawn) if ENGLISH in picture.scene.prompts]
    if has:
        texts = [drawn[place].scene.prompts[ENGLISH] for place in has]
        english[has] = 100 * _cosines(system, encoded.vectors[has], texts, cache).clip(0)
    codes = list(dict.fromkeys(picture.language for picture in drawn))
    return [_result(code, drawn, own, english) for code in codes]


def _cosines(system: System, vectors: np.ndarray, texts: list[str], cache: EmbeddingCache) -> np.ndarray:
    return (vectors * encode_texts(system, texts, cache)).sum(1)


def _result(code: str, drawn: Sequence[Drawn], own: np.ndarray, english: np.ndarray) -> GenerationResult:
    of_scene = _by_scene(drawn, own, code)
    mean, count = float(np.mean(list(of_scene.values()))), sum(picture.language == code for picture in drawn)
    to_english, base = _by_scene(drawn, english, code), _by_scene(drawn, english, ENGLISH)
    both = [key for key in to_english if key in base and np.isfinite(to_english[key])]
    if not both:
        values = np.array(list(of_scene.values()))
        return GenerationResult(code, count, mean, None, None, _interval(values))
    gaps = np.array([base[key] - to_english[key] for key in both])
    english_mean = float(np.mean([to_english[key] for key in both]))
    return GenerationResult(code, count, mean, english_mean, float(gaps.mean()), _interval(gaps))


def _by_scene(drawn: Sequence[Drawn], values: np.ndarray, code: str) -> dict[str, float]:
    """The mean of a language's pictures of each scene."""
    grouped: dict[str, list[float]] = {}
    for picture, value in zip(drawn, values.tolist(), strict=True):
        if picture.language == code:
            grouped.setdefault(picture.scene.key, []).append(value)
    return {key: float(np.mean(group)) for key, group in grouped.items()}


def _interval(values: np.ndarray) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    means = [values[generator.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
