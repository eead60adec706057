"""What emoji-m9 can do, measured on pictures and prompts that no training stage has seen."""

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.drawing import EMOJI_GUIDANCE_SCALE, Settings, draw_batch
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, Colour, Concept, colours, concepts, is_held_out
from altdiffusion_clip.emoji.held_out import PER_PAIR, HeldOutPicture, held_out_pictures
from altdiffusion_clip.emoji.judge import Judge, background_of
from altdiffusion_clip.evaluation.retrieval import retrieval
from altdiffusion_clip.images import load_image
from altdiffusion_clip.prompts import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation

if TYPE_CHECKING:
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

SYSTEMS = ("teacher", "distilled", "student")
Encode = Callable[[list[str]], Tensor]


def _systems(folder: Path) -> Iterator[tuple[str, Encode, Callable[[list[Path]], Tensor]]]:
    """Name, text encoder and image encoder of the English teacher and of the student after each stage."""
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
    # Stage 1 trains the text tower alone; its projection is still the teacher's.
    distilled.text_projection.load_state_dict(teacher.text_projection.state_dict())
    distilled.processor = scorer.processor
    for name, system in (("distilled", distilled.eval()), ("student", scorer)):
        yield name, system.encode_texts, functools.partial(_image_embeds, system)


def _image_embeds(scorer: AltCLIPScorer, paths: list[Path]) -> Tensor:
    return scorer.encode_images(paths)[0]


@torch.inference_mode()
def evaluate_retrieval(folder: Path | None = None) -> Iterator[dict[str, str | float]]:
    """Retrieval on the held-out renders, for each system and language.

    Texts and images are the same number of held-out concept-colour pairs, each said and shown once, so chance
    is one in as many.

    Args:
        folder: of emoji-m9; the embedded one if not given.

    Yields:
        `system`, `language`, and the recalls and their mean in percent.
    """
    pictures = held_out_pictures()[::PER_PAIR]
    paths = [picture.path for picture in pictures]
    relevant = torch.eye(len(pictures), dtype=torch.bool)
    for name, encode_texts, encode_images in _systems(folder or emoji_m9_folder()):
        images = encode_images(paths)
        for language in LANGUAGES:
            texts = [captions(picture.concept, picture.colour, language)[0] for picture in pictures]
            recalls = retrieval(encode_texts(texts) @ images.T, relevant).as_dict()
            yield {"system": name, "language": language, **{key: round(value, 2) for key, value in recalls.items()}}


def unseen_pairs() -> list[tuple[Concept, Colour]]:
    """The concept-colour pairs that no stage has seen, shuffled, always in the same order."""
    pairs = [(concept, colour) for concept in concepts() for colour in colours() if is_held_out(concept, colour)]
    random.Random(0).shuffle(pairs)
    return pairs


@dataclass(frozen=True)
class DrawingResult:
    """How often drawn pictures are recognised, in percent.

    Attributes:
        language: of the prompts.
        steps: of the scheduler.
        guidance_scale: 1 is none.
        prompts: how many.
        top1: the first picture of each prompt is recognised by the judge.
        one_of_n: mean over all n pictures of each prompt, which is one of n at random.
        best_of_n: the picture that our scorer puts first is recognised.
        background: the first picture has the right background colour.
        n: pictures of each prompt.
    """

    language: str
    steps: int
    guidance_scale: float
    prompts: int
    top1: float
    one_of_n: float
    best_of_n: float
    background: float
    n: int


def evaluate_drawing(
    pipeline: "AltDiffusionPipeline",
    scorer: AltCLIPScorer,
    language: str,
    count: int = 100,
    n: int = 8,
    steps: int = 25,
    guidance_scale: float = EMOJI_GUIDANCE_SCALE,
) -> DrawingResult:
    """Draws unseen prompts and has the judge, which never saw a drawn picture, say what they show."""
    judge = Judge.load()
    first, every, best, background = 0, 0, 0, 0
    for number, (concept, colour) in enumerate(tqdm(unseen_pairs()[:count], desc=f"drawing {language}")):
        prompt = captions(concept, colour, language)[0]
        seeds = tuple(range(1000 * number, 1000 * number + n))
        settings = Settings(
            prompt, seeds[0], seeds, "emoji-m9", num_inference_steps=steps, guidance_scale=guidance_scale
        )
        images = [image for image in draw_batch(pipeline, settings) if image is not None]
        right = [guess == concept for guess in judge.concepts_of(images)]
        first += right[0]
        every += sum(right)
        best += right[scorer.rank(prompt, images)[0].index]
        background += background_of(images[0]) == colour
    return DrawingResult(
        language,
        steps,
        guidance_scale,
        count,
        top1=100 * first / count,
        one_of_n=100 * every / (count * n),
        best_of_n=100 * best / count,
        background=100 * background / count,
        n=n,
    )


def judge_accuracy(pictures: list[HeldOutPicture] | None = None) -> float:
    """How many held-out renders the judge recognises, in percent."""
    pictures = pictures or held_out_pictures()
    guesses = Judge.load().concepts_of([load_image(picture.path) for picture in pictures])
    return 100 * sum(g == p.concept for g, p in zip(guesses, pictures, strict=True)) / len(pictures)
