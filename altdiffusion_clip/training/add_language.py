"""Adds a language to a text encoder and keeps the old ones. The only teacher is the model itself; no UNet is trained.

A frozen copy teaches, as CLIP does in stage 1 (arXiv 2004.09813): a sentence of the new language should be encoded as
its English is. Sentences of the old languages are replayed, and the state of each of their tokens should stay the same,
so that the UNet, which is conditioned on these, draws as before.
"""

import copy
import logging
import shutil
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.checkpoints.model_ids import resolve_scorer
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.configs import AddLanguageConfig
from altdiffusion_clip.training.data.arrays import fill_rows, path_for
from altdiffusion_clip.training.data.languages import LanguageMix
from altdiffusion_clip.training.data.parallel import ENGLISH, ParallelCorpus
from altdiffusion_clip.training.distill import translation_recall
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.loop import Tensors, optimise
from altdiffusion_clip.training.models import (
    MODEL,
    TEXT_ENCODER,
    is_altclip,
    load,
    load_altclip,
    load_student,
    place_of,
    save_model,
    subfolder_of,
    write_altclip,
)

logger = logging.getLogger(__name__)


def add_language(config: AddLanguageConfig) -> Path | Estimate:
    """Teaches a model another language. Continues a run in the same folder.

    Args:
        config: of the run.

    Returns:
        A folder like that of `config.model` with the trained text encoder (also in its scorer); for a dry run, an
        estimate.

    Raises:
        UserError: a model or a file cannot be used. The message says which and why.
    """
    accelerator = new_accelerator(config)
    save_settings(config, accelerator)
    student, tokenizer, scorer = load_bodies(config.model)
    how = {"accelerator": accelerator, "encoding": config.encoding}
    new = ParallelCorpus.prepare(config.data, tokenizer, **config.data_folder("new"), languages=config.languages, **how)
    added = [code for code in new.languages if code != ENGLISH]
    if not added:
        raise UserError("the data are only in English; records need en and the new language")
    old = new
    if config.replay:
        old = ParallelCorpus.prepare(config.replay, tokenizer, **config.data_folder("old"), **how)
    if config.dry_run:
        return estimate(config, student, tokens=np.concatenate([new.tokens.lengths, old.tokens.lengths]))
    if (config.output / MODEL).exists():
        return config.output / MODEL
    if not config.replay:
        logger.warning("no --replay: the languages that it knows will get worse; give sentences in them")
    targets = embed_english(student.to(accelerator.device), new, accelerator)
    source = NewAndOld(new, targets, old, config, student.config.pad_token_id)
    validate = None
    if config.validation:
        held_out = ParallelCorpus.prepare(config.validation, tokenizer, **config.data_folder("validation"), **how)
        references = embed_english(student, held_out, accelerator)

        def validate(task: KeepAndLearn, step: int) -> dict[str, float]:
            return translation_recall(task.student, held_out, references[:, None])

    task = KeepAndLearn(student, config.keep_weight)
    trained = optimise(task, source, config, "add language", accelerator=accelerator, validate=validate).student
    return save_model(
        accelerator, config, lambda folder: write_like(config.model, folder, trained.cpu(), tokenizer, scorer)
    )


def load_bodies(
    name: str,
) -> tuple[RobertaSeriesModelWithTransformation, PreTrainedTokenizerBase, AltCLIPScorer | None]:
    """The text encoder, tokenizer and scorer of an AltDiffusion, AltCLIP or text encoder folder."""
    _, subfolder = resolve_scorer(place_of(name))
    if subfolder or is_altclip(name):
        # Text encoder and scorer share one body, so both benefit from training.
        scorer, tokenizer = load_altclip(name)
        return scorer.text_model, tokenizer, scorer
    loader = RobertaSeriesModelWithTransformation.from_pretrained
    probe = load("the text encoder", name, loader, dtype=torch.float32, **subfolder_of(name, TEXT_ENCODER))
    if probe.pre_LN is None:
        raise UserError(f"{name} has no pre_LN, which the pooled reading needs; put its AltCLIP into {name}/scorer")
    student, tokenizer = load_student(name, probe.config.project_dim)
    return student, tokenizer, None


class KeepAndLearn(nn.Module):
    """The loss: new sentences should be encoded as their English was, and old ones as before.

    Args:
        student: to train. A frozen copy is kept.
        keep_weight: of the old sentences' loss.
    """

    def __init__(self, student: RobertaSeriesModelWithTransformation, keep_weight: float) -> None:
        super().__init__()
        self.student = student.requires_grad_(True)
        # In a list, so that it is not wrapped, sharded or saved.
        self._before = [copy.deepcopy(student).requires_grad_(False).eval()]
        self._keep_weight = keep_weight

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, english: Tensor, old_ids: Tensor, old_mask: Tensor
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            input_ids: int64 (batch, length), sentences of the new language.
            attention_mask: int64 (batch, length).
            english: float (batch, dim), the pooled output for their English before training.
            old_ids: int64 (batch, length), sentences of the old languages.
            old_mask: int64 (batch, length).
        """
        pooled = self.student(input_ids, attention_mask=attention_mask).pooler_output
        learn = (pooled.float() - english).square().mean()
        now = self.student(old_ids, attention_mask=old_mask)
        with torch.no_grad():
            before = self._before[0](old_ids, attention_mask=old_mask)
        weight = old_mask.float()
        moved = (now.projection_state.float() - before.projection_state.float()).square().mean(-1) * weight
        # Averages within each sentence first, because a mean over all tokens would depend on the parts of the batch.
        keep = (moved.sum(1) / weight.sum(1)).mean()
        keep = keep + (now.pooler_output.float() - before.pooler_output.float()).square().mean()
        return learn + self._keep_weight * keep


class NewAndOld:
    """Batches with equal numbers of sentences in the new language and in the old ones.

    Args:
        new: sentences of the new language with their English.
        targets: the pooled output for the English before training, float (distinct English sentences, dim).
        old: sentences to replay.
        config: of the run.
        pad_token_id: of the student.
    """

    def __init__(
        self,
        new: ParallelCorpus,
        targets: np.ndarray,
        old: ParallelCorpus,
        config: AddLanguageConfig,
        pad_token_id: int,
    ) -> None:
        self._new, self._targets, self._old = new, targets, old
        self._count, self._pad = config.batch_size, pad_token_id
        # English is not new. It is among the old sentences.
        self._new_mix = LanguageMix(new.language, new.languages, config.temperature, {ENGLISH: 0.0})
        self._old_mix = LanguageMix(old.language, old.languages, config.temperature)

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws sentences."""
        return {
            "new": self._new_mix.draw(self._count, generator),
            "old": self._old_mix.draw(self._count, generator),
        }

    def load(self, drawn: Tensors) -> Tensors:
        """Loads their tokens and the targets."""
        ids, mask = self._new.tokens.padded(drawn["new"].tolist(), self._pad)
        old_ids, old_mask = self._old.tokens.padded(drawn["old"].tolist(), self._pad)
        english = torch.from_numpy(self._targets[self._new.target[drawn["new"].numpy()]])
        return {
            "input_ids": ids.long(),
            "attention_mask": mask,
            "english": english,
            "old_ids": old_ids.long(),
            "old_mask": old_mask,
        }


def embed_english(
    student: RobertaSeriesModelWithTransformation, corpus: ParallelCorpus, accelerator: Accelerator | None = None
) -> np.ndarray:
    """The model's own pooled output for each distinct English sentence before training: (sentences, dim)."""
    # The first sentence with a target is the English sentence itself.
    english = np.flatnonzero(corpus.language == corpus.languages.index(ENGLISH))
    row_of = np.empty(len(corpus.english), np.int64)
    row_of[corpus.target[english]] = english
    student.eval()

    @torch.no_grad()
    def compute(start: int, stop: int) -> Tensor:
        ids, mask = corpus.tokens.padded(row_of[start:stop].tolist(), student.config.pad_token_id)
        return student(ids.long().to(student.device), attention_mask=mask.to(student.device)).pooler_output.float()

    return fill_rows(
        path_for(corpus.folder / "english.bin", student, corpus.is_shared),
        len(corpus.english),
        (student.config.project_dim,),
        "float32",
        compute,
        accelerator=accelerator,
        description="English",
        is_shared=corpus.is_shared,
    )


def write_like(
    model: str,
    folder: Path,
    student: RobertaSeriesModelWithTransformation,
    tokenizer: PreTrainedTokenizerBase,
    scorer: AltCLIPScorer | None,
) -> None:
    """Writes a folder like the model's, with the student in place of its text encoder."""
    place = place_of(model)
    if is_altclip(model):
        assert scorer is not None
        write_altclip(scorer, folder)
        return
    if not (place / TEXT_ENCODER).is_dir():
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return
    index = [p for p in place.iterdir() if p.name in ("model_index.json", "unet", "vae", "scheduler", "tokenizer")]
    others = [p for p in place.iterdir() if p.name in ("safety_checker", "feature_extractor")]
    for path in [*index, *others]:
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copyfile(path, folder / path.name)
    student.save_pretrained(folder / TEXT_ENCODER)
    if scorer is not None:
        scorer.text_model = student
        scorer.save_pretrained(folder / "scorer")
