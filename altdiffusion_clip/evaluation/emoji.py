"""Measures emoji-m18 on scenes and words that no training stage has seen."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18, resolve
from altdiffusion_clip.drawing.calls import call_pipeline, pictures_of
from altdiffusion_clip.drawing.settings import STEPS, Settings, usual_guidance_scale
from altdiffusion_clip.emoji.captions import Claim, claim_of, held_out_words, say, traditional
from altdiffusion_clip.emoji.concepts import concepts, drawn_concepts, find_ground
from altdiffusion_clip.emoji.distance import Distance, distance_to_renders, summary
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.pictures import with_hard_negatives
from altdiffusion_clip.emoji.recipe import ALL_KINDS
from altdiffusion_clip.emoji.recogniser import is_right, recognise
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import Scene, draw_scenes
from altdiffusion_clip.evaluation.ranks import ranks_of_embeddings
from altdiffusion_clip.evaluation.retrieval import KS, retrieval_of_ranks
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

Row = dict[str, Any]
Encode = Callable[[list[str]], Tensor]
AT_ONCE = 18
"""Pictures to draw in one batch."""

DRAWN_SHARES = {"one": 8.0, "small": 1.0, "big": 1.5, "beside": 3.0, "above": 1.5, "two": 1.0, "three": 1.0}
"""Shares of the kinds of scenes in the evaluation. They do not change with the training data."""

GROUPS = {
    "single": ("one", "small", "big"),
    "pair": ("beside", "above"),
    "count": ("two", "three"),
}
"""Kinds of scenes that are reported together."""


# -------------------------------------------------------------------- retrieval


@torch.no_grad()
def evaluate_retrieval(scorer: AltCLIPScorer, scenes: int = 100, languages: Sequence[str] = LANGUAGES) -> Iterator[Row]:
    """Finds unseen scenes by their captions, each among three scenes that differ in one respect.

    Args:
        scorer: the student, emoji-m18's.
        scenes: number of scenes; the gallery has four times as many.
        languages: of the captions.

    Yields:
        `system` (the English teacher or the student), `language`, `typed` (how the caption is written), and the
        recalls both ways and their mean in percent. A caption is right for every scene that it is true of.
    """
    shown = with_hard_negatives(draw_scenes(scenes, seed=123, shares=ALL_KINDS, unseen=True), seed=5)
    words = random.Random(7)
    claims = [replace(claim_of(scene, words), ground=scene.ground) for scene in shown]
    pairs = [(text, picture) for text, claim in enumerate(claims) for picture, scene in enumerate(shown)
             if claim.is_true_of(scene)]  # fmt: skip
    vectors, _ = scorer.encode_images([scene.render() for scene in shown])

    def row(system: str, language: str, typed: str, encode: Encode, write: Callable[[str], str] = str) -> Row:
        generator = random.Random(1)
        texts = [write(say(claim, language, generator)) for claim in claims]
        return {"system": system, "language": language, "typed": typed, **_recalls(encode(texts), vectors, pairs)}

    teacher = _teacher_texts()
    for language in languages:
        yield row("teacher", language, "as taught", teacher)
        yield row("student", language, "as taught", scorer.encode_texts)
        if language == "zh":
            yield row("student", language, "traditional", scorer.encode_texts, traditional)
        if language in ("en", "de", "ru", "tr"):
            yield row("student", language, "first capital", scorer.encode_texts, _first_capital)
            yield row("student", language, "all capitals", scorer.encode_texts, str.upper)
    yield from _evaluate_synonyms(scorer, [language for language in languages if language != "en"])


def _first_capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def _evaluate_synonyms(scorer: AltCLIPScorer, languages: Sequence[str]) -> Iterator[Row]:
    """Finds things, among all things, by words that no sentence contains."""
    pictures = [Scene("one", (thing,), find_ground("grey")).render() for thing in concepts()]
    vectors, _ = scorer.encode_images(pictures)
    for language in languages:
        held_out = held_out_words(language)
        recalls = _recalls(scorer.encode_texts(list(held_out.values())), vectors, list(enumerate(held_out)))
        yield {"system": "student", "language": language, "typed": "unseen synonyms", **recalls}


def _recalls(texts: Tensor, images: Tensor, pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """All recalls of unit vectors, in percent. Pictures without a text are candidates only."""
    found = retrieval_of_ranks(ranks_of_embeddings(texts.to(images.device), images, np.array(pairs), max(KS), "mean"))
    return {name: round(value, 2) for name, value in found.as_dict().items()}


def _teacher_texts() -> Encode:
    folder = resolve(f"{EMOJI_M18}/teacher")
    teacher = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def encode(texts: list[str]) -> Tensor:
        ids, mask = tokenize(tokenizer, texts)
        return F.normalize(teacher.get_text_features(ids, attention_mask=mask).pooler_output, dim=-1)

    return encode


# -------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class Drawn:
    """The results of one prompt.

    Attributes:
        scene: of the prompt.
        language: of the prompt.
        distance: of the first picture.
        right: whether each picture is right, in the scorer's order, best first.
        first_is_right: whether the picture that was drawn first is right.
    """

    scene: Scene
    language: str
    distance: Distance
    right: tuple[bool, ...]
    first_is_right: bool


def evaluate_drawing(
    pipeline: "AltDiffusionPipeline",
    scorer: AltCLIPScorer,
    scenes: int = 12,
    images: int = 4,
    languages: Sequence[str] = LANGUAGES,
    steps: int = STEPS,
) -> Iterator[Row]:
    """Draws unseen scenes from prompts in every language, and compares the pictures with true renders.

    Args:
        pipeline: of emoji-m18, on any device in any dtype.
        scorer: to choose among the pictures of a prompt.
        scenes: number of scenes in each language.
        images: pictures per prompt.
        languages: of the prompts.
        steps: of the scheduler.

    Yields:
        For all prompts, each of `GROUPS` and each language: the median distance of the first picture to the nearest
        true render and the autoencoder's own, in dB (`psnr`, `autoencoder`, `gap`, `gap_worst_tenth`); and the
        percentage of prompts with a right first picture (`right`), a right picture in the scorer's first place
        (`best_right`), and any right picture (`any_right`).
    """
    shown = draw_scenes(scenes, seed=31, shares=DRAWN_SHARES, things=drawn_concepts(), unseen=True)
    # States everything about a scene except its arrangement, in everyday words.
    asked = [
        (scene, language, say(Claim(scene.kind, scene.things, scene.ground), language, random.Random(0)))
        for scene in shown
        for language in languages
    ]
    # In every language, a scene is drawn from the same noise.
    seeds = [range(number * images, (number + 1) * images) for number in range(scenes) for _ in languages]
    wanted = [(prompt, seed) for (_, _, prompt), each in zip(asked, seeds, strict=True) for seed in each]
    pictures = _pictures(pipeline, wanted, steps)
    found = [
        _drawn([next(pictures) for _ in range(images)], scene, language, prompt, scorer, pipeline.vae)
        for scene, language, prompt in asked
    ]
    yield _figures("all", found)
    for name, kinds in GROUPS.items():
        yield from _if_any(name, [each for each in found if each.scene.kind in kinds])
    for language in languages:
        yield from _if_any(f"language {language}", [each for each in found if each.language == language])


def _pictures(pipeline: "AltDiffusionPipeline", wanted: Sequence[tuple[str, int]], steps: int) -> Iterator[Image.Image]:
    """Draws a picture for each prompt and seed. One that is not a number is black."""
    how = Settings("", 0, (), EMOJI_M18, num_inference_steps=steps, guidance_scale=usual_guidance_scale(EMOJI_M18))
    for start in tqdm(range(0, len(wanted), AT_ONCE), unit="batch"):
        prompts, seeds = zip(*wanted[start : start + AT_ONCE], strict=True)
        for picture in pictures_of(call_pipeline(pipeline, how, prompts=prompts, seeds=seeds).images):
            yield picture or Image.new("RGB", (RESOLUTION, RESOLUTION))


def _drawn(
    pictures: Sequence[Image.Image], scene: Scene, language: str, prompt: str, scorer: AltCLIPScorer, vae: Any
) -> Drawn:
    right = [is_right(recognise(picture), scene) for picture in pictures]
    ranked = tuple(right[each.index] for each in scorer.rank(prompt, pictures))
    return Drawn(scene, language, distance_to_renders(pictures[0], scene, vae), ranked, right[0])


def _figures(of: str, found: Sequence[Drawn]) -> Row:
    distances = {name: round(value, 2) for name, value in summary([each.distance for each in found]).items()}
    return {
        "of": of,
        "prompts": len(found),
        **distances,
        "right": _percent([each.first_is_right for each in found]),
        "best_right": _percent([each.right[0] for each in found]),
        "any_right": _percent([any(each.right) for each in found]),
    }


def _if_any(of: str, found: Sequence[Drawn]) -> Iterator[Row]:
    if found:
        yield _figures(of, found)


def _percent(right: Sequence[bool]) -> float:
    return round(100 * sum(right) / len(right), 1) if right else 0.0
