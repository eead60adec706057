"""How emoji-m9 was made: every stage from the font to the finished folder, by this project's own programs.

Run it with ``make emoji-m9``. Each stage writes a checkpoint once a minute and goes on from it, so the
command may be stopped at any moment and given again; stages that are done are skipped.
"""

import argparse
import logging
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import CLIPModel, CLIPTokenizer, PreTrainedTokenizerBase, XLMRobertaTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.emoji.architectures import (
    new_scheduler,
    new_scorer,
    new_student,
    new_teacher,
    new_unet,
    new_vae,
)
from altdiffusion_clip.emoji.concepts import LANGUAGES
from altdiffusion_clip.emoji.held_out import held_out_pictures, write_held_out
from altdiffusion_clip.emoji.judge import Judge, blurred
from altdiffusion_clip.emoji.tokenizers import cldr_names, train_clip_tokenizer, train_xlmr_tokenizer
from altdiffusion_clip.emoji.world import (
    CaptionBank,
    Pictures,
    Tokenize,
    all_captions,
    drop_colours,
    same_meaning,
    training_pictures,
)
from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.align import LatentBatch, encode_states, train_align
from altdiffusion_clip.training.clip import ImageTextBatch, train_clip
from altdiffusion_clip.training.contrastive import TextImageBatch, train_contrastive
from altdiffusion_clip.training.distill import ParallelBatch, teacher_embeds, train_distill
from altdiffusion_clip.training.loop import LoopConfig, optimise
from altdiffusion_clip.training.vae import psnr, train_vae

logger = logging.getLogger(__name__)


def vae_stage(pictures: Pictures, folder: Path, device: torch.device) -> None:
    """Small crops first, because many small steps beat few large ones; whole pictures to finish."""

    def crops(generator: torch.Generator) -> torch.Tensor:
        whole = pictures.signed(pictures.draw(16, generator))
        top, left = (int(torch.randint(33, (), generator=generator)) for _ in range(2))
        return whole[:, :, top : top + 32, left : left + 32].contiguous()

    def whole(generator: torch.Generator) -> torch.Tensor:
        return pictures.signed(pictures.draw(8, generator))

    torch.manual_seed(0)
    vae = new_vae().to(device)
    config = LoopConfig(steps=4000, learning_rate=1.5e-3, warmup_steps=100, decay_from=0.7, weight_decay=0.0)
    train_vae(vae, crops, config, folder / "vae-crops.pt")
    config = LoopConfig(steps=2000, learning_rate=1e-3, warmup_steps=50, weight_decay=0.0, ema_decay=0.995)
    vae = train_vae(vae, whole, config, folder / "vae.pt")
    logger.info("VAE: %.1f dB", psnr(vae, whole(torch.Generator().manual_seed(0))))
    vae.save_pretrained(folder / "vae")


def clip_pixels(pictures: Pictures, positions: Tensor) -> Tensor:
    """Pictures as the vision tower takes them: float (n, 3, side, side), normalised as CLIP's."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (pictures.pixels[positions].float().div_(255) - mean) / std


def tokenize_with(tokenizer: PreTrainedTokenizerBase) -> Tokenize:
    """Makes a CaptionBank's tokenize function."""

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        encoded = tokenizer(texts, padding=True, return_tensors="pt")
        return encoded.input_ids, encoded.attention_mask

    return tokenize


def teacher_stage(pictures: Pictures, folder: Path, device: torch.device) -> None:
    """An English-only CLIP: its tokenizer and its captions are English."""
    tokenizer = train_clip_tokenizer(all_captions(["en"]))
    bank = CaptionBank(["en"], tokenize_with(tokenizer))

    def batch(generator: torch.Generator) -> ImageTextBatch:
        positions = pictures.draw(64, generator)
        concept, colour = pictures.concept[positions], pictures.colour[positions]
        said = drop_colours(colour, 0.3, generator)
        ids, mask = bank.batch(bank.draw(concept, said, torch.zeros_like(concept), generator))
        pixels = clip_pixels(pictures, positions)
        return ImageTextBatch(ids, mask, pixels, same_meaning(concept, said, concept, colour))

    torch.manual_seed(0)
    config = LoopConfig(steps=2000, learning_rate=1e-3, warmup_steps=200, weight_decay=0.05)
    teacher = train_clip(new_teacher(tokenizer).to(device), batch, config, folder / "teacher.pt")
    teacher.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")


def distill_stage(folder: Path, device: torch.device) -> None:
    """Stage 1: the student in nine languages learns the teacher's English."""
    tokenizer = train_xlmr_tokenizer([*all_captions(LANGUAGES), *cldr_names(LANGUAGES)], folder / "tokenizer")
    bank = CaptionBank(LANGUAGES, tokenize_with(tokenizer))
    teacher = CLIPModel.from_pretrained(folder / "teacher")
    sentences = sorted(set(bank.english))
    embeds = teacher_embeds(teacher.text_model.to(device), CLIPTokenizer.from_pretrained(folder / "teacher"), sentences)
    place = {sentence: i for i, sentence in enumerate(sentences)}
    target = torch.tensor([place[sentence] for sentence in bank.english])

    def batch(generator: torch.Generator) -> ParallelBatch:
        concept, colour = bank.draw_meanings(512, generator)
        language = torch.randint(len(LANGUAGES), concept.shape, generator=generator)
        rows = bank.draw(concept, colour, language, generator)
        rows = rows[bank.similar_lengths(rows, 128, generator)]
        return ParallelBatch(*bank.batch(rows), embeds[target[rows]])

    torch.manual_seed(0)
    config = LoopConfig(steps=3000, learning_rate=5e-4, warmup_steps=300)
    student = train_distill(new_student(tokenizer).to(device), batch, config, folder / "distilled.pt")
    student.save_pretrained(folder / "distilled")


def contrastive_stage(pictures: Pictures, folder: Path, device: torch.device) -> None:
    """Stage 2: the student's captions against pictures, with the teacher's vision half as it is."""
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder / "tokenizer")
    bank = CaptionBank(LANGUAGES, tokenize_with(tokenizer))
    student = RobertaSeriesModelWithTransformation.from_pretrained(folder / "distilled")
    scorer = new_scorer(CLIPModel.from_pretrained(folder / "teacher"), student, tokenizer).to(device)
    with torch.no_grad():
        features = torch.cat(
            [
                scorer.get_image_features(clip_pixels(pictures, positions).to(device)).cpu()
                for positions in torch.arange(len(pictures)).split(256)
            ]
        )

    def batch(generator: torch.Generator) -> TextImageBatch:
        positions = pictures.draw(512, generator)
        said = drop_colours(pictures.colour[positions], 0.3, generator)
        language = torch.randint(len(LANGUAGES), said.shape, generator=generator)
        rows = bank.draw(pictures.concept[positions], said, language, generator)
        keep = bank.similar_lengths(rows, 128, generator)
        positions, said, rows = positions[keep], said[keep], rows[keep]
        concept, colour = pictures.concept[positions], pictures.colour[positions]
        return TextImageBatch(*bank.batch(rows), features[positions], same_meaning(concept, said, concept, colour))

    config = LoopConfig(steps=800, learning_rate=1e-4, warmup_steps=100)
    scorer = train_contrastive(scorer, batch, config, folder / "scorer.pt")
    scorer.save_pretrained(folder / "scorer")
    scorer.text_model.save_pretrained(folder / "text_encoder")


@torch.no_grad()
def latents_of(pictures: Pictures, vae: AutoencoderKL) -> Tensor:
    """All pictures as scaled latents, float (N, 4, 16, 16)."""
    rows = [
        vae.encode(pictures.signed(positions).to(vae.device)).latent_dist.mode().cpu()
        for positions in tqdm(torch.arange(len(pictures)).split(64), desc="latents", mininterval=5.0)
    ]
    return torch.cat(rows) * vae.config.scaling_factor


def align_stage(pictures: Pictures, folder: Path, device: torch.device) -> None:
    """The UNet, on the frozen student's conditioning in all nine languages."""
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder / "tokenizer")
    bank = CaptionBank(LANGUAGES, tokenize_with(tokenizer))
    bank.ids, bank.mask = tokenize_with(tokenizer)([*bank.texts, ""])
    text_encoder = RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder").to(device).eval()
    states = encode_states(text_encoder, bank.ids, bank.mask)
    empty = len(bank.texts)
    latents = latents_of(pictures, AutoencoderKL.from_pretrained(folder / "vae").to(device))

    def batch(generator: torch.Generator) -> LatentBatch:
        positions = pictures.draw(16, generator)
        said = drop_colours(pictures.colour[positions], 0.15, generator)
        # English twice as often as each other language.
        language = (torch.randint(len(LANGUAGES) + 1, said.shape, generator=generator) - 1).clamp(min=0)
        rows = bank.draw(pictures.concept[positions], said, language, generator)
        rows = torch.where(torch.rand(rows.shape, generator=generator) < 0.1, empty, rows)
        return LatentBatch(latents[positions], *states.batch(rows))

    torch.manual_seed(0)
    config = LoopConfig(steps=10000, learning_rate=6e-4, warmup_steps=200, decay_from=0.6, ema_decay=0.999)
    unet = train_align(new_unet().to(device), new_scheduler(), batch, config, folder / "unet.pt")
    unet.save_pretrained(folder / "unet")
    new_scheduler().save_pretrained(folder / "scheduler")


def judge_stage(pictures: Pictures, folder: Path, device: torch.device) -> None:
    """The classifier that judges drawn pictures; it sees renders only.

    They are shifted by up to two pixels, so that of the held-out renders it has not seen the pairs and sizes,
    but some of the positions.
    """

    def loss_at(generator: torch.Generator) -> Tensor:
        positions = pictures.draw(64, generator)
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        pixels = blurred(torch.roll(pictures.signed(positions), shift, (2, 3)), generator)
        return F.cross_entropy(judge(pixels.to(device)), pictures.concept[positions].to(device))

    write_held_out()
    torch.manual_seed(0)
    judge = Judge().to(device)
    optimise(judge, loss_at, LoopConfig(steps=2500, learning_rate=2e-3), folder / "judge.pt", "judge")
    judge.cpu().save()
    held_out = held_out_pictures()
    logger.info("judge: %.1f%% of %d held-out renders", judge.accuracy(held_out), len(held_out))


def assemble(folder: Path, destination: Path) -> None:
    """Puts the finished parts together in the published layout, weights in half precision where that is exact
    enough: the UNet, and the two systems that only the evaluation reads.
    """
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder / "tokenizer")
    pipeline = AltDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder"),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_pretrained(folder / "unet").half(),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(destination)
    AltCLIPScorer.from_pretrained(folder / "scorer").save_pretrained(destination / "scorer")
    CLIPModel.from_pretrained(folder / "teacher").half().save_pretrained(destination / "teacher")
    CLIPTokenizer.from_pretrained(folder / "teacher").save_pretrained(destination / "teacher")
    distilled = RobertaSeriesModelWithTransformation.from_pretrained(folder / "distilled").half()
    distilled.save_pretrained(destination / "distilled")


STAGES = ("vae", "teacher", "distill", "contrastive", "judge", "align", "assemble")


def main() -> None:
    """Runs the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/emoji-m9"), help="checkpoints of the stages")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--output", type=Path, default=emoji_m9_folder(), help="where the finished folder goes")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    needs_pictures = {"vae", "teacher", "contrastive", "judge", "align"} & set(arguments.stage)
    pictures = training_pictures() if needs_pictures else None
    for stage in arguments.stage:
        if stage == "distill":
            distill_stage(work, arguments.device)
        elif stage == "assemble":
            assemble(work, arguments.output)
        elif pictures is not None:
            _PICTURE_STAGES[stage](pictures, work, arguments.device)


_PICTURE_STAGES = {
    "vae": vae_stage,
    "teacher": teacher_stage,
    "contrastive": contrastive_stage,
    "judge": judge_stage,
    "align": align_stage,
}


if __name__ == "__main__":
    main()
