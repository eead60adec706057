"""Measures how well drawn pictures fit their prompts in each language, as MG-18 does (AltDiffusion, arXiv 2308.09991).

The same scenes are drawn from prompts in several languages. Any CLIP compares a picture with its own prompt and with
the English prompt of its scene. The gap of a language is English's mean minus its own, both on English prompts, so it
reflects what was drawn and not how well the CLIP reads the language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import plain_pairs
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.evaluation.datasets.text_files import json_lines
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import judge_rows
from altdiffusion_clip.judges.pictures import Workers
from altdiffusion_clip.scores import COSINE
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.row import Row

ENGLISH = "en"
RESAMPLES = 1000


@dataclass(frozen=True)
class Scene:
    """A scene with prompts in several languages."""

    key: str
    prompts: Mapping[str, str]


@dataclass(frozen=True)
class Drawn:
    """A picture and its prompt."""

    file: Path
    scene: Scene
    language: str


def read_scenes(path: Path, languages: Sequence[str] = ()) -> list[Scene]:
    """Reads scenes, one JSON object per line, such as {"id": "1", "prompts": {"en": "a cat", "zh": "猫"}}.

    Args:
        path: the file.
        languages: to keep; all if empty.

    Raises:
        UserError: a line has another format, an id occurs twice, or a language has no prompts.
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
    """Things on plain grounds held out from emoji-m18's training, in its eighteen languages."""
    return [
        Scene(
            f"{concept.names[ENGLISH]} on {ground.name}",
            {code: captions(concept, ground, code)[0] for code in LANGUAGES if code in (languages or LANGUAGES)},
        )
        for concept, ground in plain_pairs(unseen=True)[:count]
    ]


def match(rows: Sequence[dict[str, Any]], folder: Path, scenes: Sequence[Scene]) -> list[Drawn]:
    """Finds the pictures of the scenes' prompts in a `results.jsonl`.

    A prompt that is the same in two languages counts for both.

    Raises:
        UserError: there are no pictures, or a scene's prompt in some language was not drawn.
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
    """A judge's results for one language.

    Attributes:
        language: code.
        pictures: number of pictures.
        clip_score: mean of 100 · max(cosine, 0) of pictures and their own prompts, or of the scores of a judge without
            cosines.
        clip_score_english: the same with the English prompts of the scenes; None if there are none.
        gap: English's `clip_score_english` on the same scenes minus this language's; None without English.
        interval_95: bootstrap interval over the scenes, of `gap` if there is one, otherwise of `clip_score`.
    """

    language: str
    pictures: int
    clip_score: float
    clip_score_english: float | None
    gap: float | None
    interval_95: tuple[float, float]


def evaluate_generation(bench: Bench, drawn: Sequence[Drawn]) -> list[GenerationResult]:
    """Measures every language.

    Args:
        bench: of one judge.
        drawn: the pictures.

    Raises:
        UserError: a picture cannot be read, or a score is not a number.
    """
    english = [picture.scene.prompts.get(ENGLISH, "") for picture in drawn]
    own = [picture.scene.prompts[picture.language] for picture in drawn]
    rows = [Row(str(p.file), Located(str(p.file)), text) for p, text in zip(drawn, own, strict=True)]
    rows += [Row(str(p.file), Located(str(p.file)), text) for p, text in zip(drawn, english, strict=True) if text]
    with Workers(bench.preparation(exact=True)) as workers:
        _, judged = judge_rows(rows, [bench], workers)
    broken = [f"{row.row_id}: {each.error}" for row, each in zip(rows, judged, strict=True) if each.error]
    if broken:
        raise UserError(f"{len(set(broken))} pictures cannot be judged, the first is {broken[0]}")
    scores = np.array([each.scores[0] for each in judged])
    if bench.panel.columns[0].measure == COSINE:
        scores = 100 * scores.clip(0)
    to_english = np.full(len(drawn), np.nan)
    to_english[[place for place, text in enumerate(english) if text]] = scores[len(drawn) :]
    codes = list(dict.fromkeys(picture.language for picture in drawn))
    return [_result(code, drawn, scores[: len(drawn)], to_english) for code in codes]


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
    """The mean over a language's pictures of each scene."""
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
