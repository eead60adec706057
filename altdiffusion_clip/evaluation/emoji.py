"""Measures emoji-m9 on pictures and prompts that no training stage has seen."""

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9, emoji_m9_folder
from altdiffusion_clip.drawing.calls import draw_batch
from altdiffusion_clip.drawing.settings import STEPS, Settings, usual_guidance_scale
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
from altdiffusion_clip.emoji.held_out import PER_PAIR, held_out_pictures
from altdiffusion_clip.emoji.recogniser import Recogniser, background_of
from altdiffusion_clip.evaluation.retrieval import Retrieval, retrieval
from altdiffusion_clip.images import load_image
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

SYSTEMS = ("teacher", "distilled", "student")
Encode = Callable[[list[str]], Tensor]


def _systems(folder: Path) -> Iterator[tuple[str, Encode, Callable[[list[Path]], Tensor]]]:
    """Name, text encoder and image encoder of the English teacher, and of the student after each stage."""
    scorer = AltCLIPScorer.from_pretrained(folder).eval()
    teacher = CLIPModel.from_pretrained(folder / "teacher", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "teacher")

    def teacher_texts(texts: list[str]) -> Tensor:
        ids, mask = tokenize(tokenizer, texts)
        return F.normalize(teacher.get_text_features(ids, attention_mask=mask).pooler_output, dim=-1)

    def teacher_images(paths: list[Path]) -> Tensor:
        assert scorer.processor is not None
        pixels = scorer.processor.image_processor([load_image(p) for p in paths], return_tensors="pt").pixel_values
        return F.normalize(teacher.get_image_features(pixels).pooler_output, dim=-1)

    yield "teacher", teacher_texts, teacher_images

    distilled = AltCLIPScorer(scorer.config)
    distilled.load_state_dict(scorer.state_dict())
    after_stage_1 = RobertaSeriesModelWithTransformation.from_pretrained(folder / "distilled", dtype=torch.float32)
    distilled.text_model.load_state_dict(after_stage_1.state_dict())
    # Stage 1 trains only the text tower. The projection is still the teacher's.
    distilled.text_projection.load_state_dict(teacher.text_projection.state_dict())
    distilled.processor = scorer.processor
    for name, system in (("distilled", distilled.eval()), ("student", scorer)):
        yield name, system.encode_texts, functools.partial(_image_embeds, system)


def _image_embeds(scorer: AltCLIPScorer, paths: list[Path]) -> Tensor:
    return scorer.encode_images(paths)[0]


@torch.no_grad()
def evaluate_retrieval(
    folder: Path | None = None, languages: Sequence[str] = LANGUAGES
) -> Iterator[dict[str, str | float]]:
    """Measures retrieval on the held-out renders, for each system and language.

    Each held-out concept-colour pair has one text and one image, so chance is one in the number of pairs.

    Args:
        folder: of emoji-m9; by default the one in the package.
        languages: of the captions.

    Yields:
        `system`, `language`, and the recalls and their mean in percent.
    """
    paths = [picture.path for picture in held_out_pictures()[::PER_PAIR]]
    for name, encode_texts, encode_images in _systems(folder or emoji_m9_folder()):
        images = encode_images(paths)
        for language in languages:
            recalls = _held_out_retrieval(encode_texts, images, language).as_dict()
            yield {"system": name, "language": language, **{key: round(value, 2) for key, value in recalls.items()}}


@torch.no_grad()
def retrieval_of(scorer: AltCLIPScorer, language: str) -> Retrieval:
    """Measures retrieval for one scorer in one language, as `evaluate_retrieval` does."""
    images, _ = scorer.encode_images([picture.path for picture in held_out_pictures()[::PER_PAIR]])
    return _held_out_retrieval(scorer.encode_texts, images, language)


def _held_out_retrieval(encode_texts: Encode, images: Tensor, language: str) -> Retrieval:
    """Retrieval between the embedded first picture of each held-out pair and its caption in a language."""
    pictures = held_out_pictures()[::PER_PAIR]
    texts = [captions(picture.concept, picture.colour, language)[0] for picture in pictures]
    return retrieval(encode_texts(texts) @ images.T, torch.eye(len(pictures), dtype=torch.bool))


def pairs(unseen: bool) -> list[tuple[Concept, Colour]]:
    """The held-out concept-colour pairs, or all others, in a fixed random order."""
    chosen = [(concept, colour) for concept in concepts() for colour in colours()]
    chosen = [(concept, colour) for concept, colour in chosen if is_held_out(concept, colour) == unseen]
    random.Random(0).shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class DrawingResult:
    """How often drawn pictures show what the prompt asks for, in percent.

    Attributes:
        language: of the prompts.
        drawn_from: "prompt", or "name" if only the scorer was told the background colour.
        prompts: number of prompts.
        n: pictures per prompt.
        top1: the recogniser recognises the concept in the first picture of each prompt.
        one_of_n: concept and background colour are right, averaged over all n pictures, as if choosing at random.
        best_of_n: concept and background colour are right in the picture that our scorer ranks first.
    """

    language: str
    drawn_from: str
    prompts: int
    n: int
    top1: float
    one_of_n: float
    best_of_n: float


def evaluate_drawing(
    pipeline: "AltDiffusionPipeline",
    scorer: AltCLIPScorer,
    language: str,
    count: int = 100,
    n: int = 8,
    steps: int = STEPS,
    drawn_from: str = "prompt",
) -> DrawingResult:
    """Draws pictures and lets the recogniser, which was trained only on renders, say what they show.

    Args:
        pipeline: of emoji-m9.
        scorer: to choose the best of n.
        language: of the prompts.
        count: number of prompts.
        n: pictures per prompt.
        steps: scheduler steps.
        drawn_from: "prompt" draws held-out concept-colour pairs. "name" draws from the concept's name and ranks by the
            whole prompt, so that the background is left to chance and there is something to choose. Its pairs are seen
            ones, because without being told, the model draws no other backgrounds.
    """
    recogniser = Recogniser.load()
    recognised, right, best = 0, 0, 0
    chosen = pairs(unseen=drawn_from == "prompt")[:count]
    for number, (concept, colour) in enumerate(tqdm(chosen, desc=f"drawing {language} from the {drawn_from}")):
        prompt = captions(concept, colour, language)[0]
        drawn = prompt if drawn_from == "prompt" else captions(concept, None, language)[0]
        seeds = tuple(range(1000 * number, 1000 * number + n))
        settings = Settings(
            drawn, seeds[0], seeds, EMOJI_M9, num_inference_steps=steps, guidance_scale=usual_guidance_scale(EMOJI_M9)
        )
        images = [image for image in draw_batch(pipeline, settings) if image is not None]
        shown = [guess == concept for guess in recogniser.concepts_of(images)]
        both = [a and background_of(image) == colour for a, image in zip(shown, images, strict=True)]
        recognised += shown[0]
        right += sum(both)
        best += both[scorer.rank(prompt, images)[0].index]
    return DrawingResult(
        language,
        drawn_from,
        count,
        n,
        top1=100 * recognised / count,
        one_of_n=100 * right / (count * n),
        best_of_n=100 * best / count,
    )


def unseen_scenes() -> list[tuple[Concept, Concept]]:
    """The left and right concepts of every held-out scene, in a fixed random order."""
    chosen = [(left, right) for left in concepts() for right in concepts()]
    chosen = [(left, right) for left, right in chosen if left != right and is_pair_held_out(left, right)]
    random.Random(0).shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class SceneResult:
    """How often a drawn scene shows the two things in the prompt, in percent.

    Attributes:
        language: of the prompts.
        places: whether the prompts say which thing is on which side.
        prompts: number of prompts, with one picture each.
        one: at least one of the two is recognised where it should be.
        both: both are recognised where they should be.
    """

    language: str
    places: bool
    prompts: int
    one: float
    both: float


def evaluate_scenes(
    pipeline: "AltDiffusionPipeline", language: str, places: bool, count: int = 100, steps: int = STEPS
) -> SceneResult:
    """Draws two things that were never seen together, and lets the recogniser look at each half.

    Args:
        pipeline: of emoji-m9.
        language: of the prompts.
        places: use prompts that say which thing is on the left. Otherwise ("a cat and an apple") either order is right.
        count: number of prompts.
        steps: scheduler steps.
    """
    recogniser = Recogniser.load()
    one, both = 0, 0
    for number, (left, right) in enumerate(tqdm(unseen_scenes()[:count], desc=f"drawing scenes {language}")):
        prompt = scene_captions(left, right, None, language)[2 if places else 0]
        settings = Settings(
            prompt,
            number,
            (number,),
            EMOJI_M9,
            num_inference_steps=steps,
            guidance_scale=usual_guidance_scale(EMOJI_M9),
        )
        (image,) = draw_batch(pipeline, settings)
        if image is None:
            continue
        shown = recogniser.scenes_of([image])[0]
        orders = [(left, right)] if places else [(left, right), (right, left)]
        right_ones = max(sum(a == b for a, b in zip(shown, order, strict=True)) for order in orders)
        one += right_ones >= 1
        both += right_ones == 2
    return SceneResult(language, places, count, one=100 * one / count, both=100 * both / count)
