"""Stage 1, teacher learning: the student's pooled output for any language learns the teacher's for English.

AltCLIP (arXiv 2211.06679, section 3.1), after multilingual sentence embeddings (arXiv 2004.09813). A student with
AltDiffusion-m18's architecture has a second projection, which conditions a UNet on the penultimate layer. It learns the
teacher's penultimate layer in the same way, because Stable Diffusion 2 is conditioned on that layer of its CLIP.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.accelerators import new_accelerator, save_settings
from altdiffusion_clip.training.configs import DistillConfig
from altdiffusion_clip.training.data.arrays import fill_rows, path_for
from altdiffusion_clip.training.data.languages import LanguageMix, similar_lengths
from altdiffusion_clip.training.data.parallel import ENGLISH, ParallelCorpus
from altdiffusion_clip.training.estimate import Estimate, estimate
from altdiffusion_clip.training.loop import Tensors, optimise
from altdiffusion_clip.training.models import MODEL, load_student, load_teacher_text, save_model

logger = logging.getLogger(__name__)
POOL = 8
"""Batches of sentences to choose one batch of similar length from."""


def distill(config: DistillConfig) -> Path | Estimate:
    """Runs stage 1. Continues a run in the same folder.

    Args:
        config: of the run.

    Returns:
        The folder of the student and its tokenizer; for a dry run, an estimate.

    Raises:
        UserError: a model or a file cannot be used. The message says which and why.
    """
    accelerator = new_accelerator(config)
    save_settings(config, accelerator)
    teacher, reader = load_teacher_text(config.teacher)
    student, tokenizer = load_student(
        config.student, teacher.config.hidden_size, config.seed, config.pre_transformation
    )
    layers = 1 if student.transformation_pre is None else 2
    mix = {"languages": config.languages, "accelerator": accelerator, "encoding": config.encoding}
    corpus = ParallelCorpus.prepare(config.data, tokenizer, **config.data_folder("parallel"), **mix)
    if config.dry_run:
        return estimate(
            config,
            student,
            tokens=corpus.tokens.lengths,
            cache_bytes=len(corpus.english) * 2 * teacher.config.hidden_size * layers,
        )
    if (config.output / MODEL).exists():
        return config.output / MODEL
    embeds = embed_english(teacher.to(accelerator.device), reader, corpus, accelerator, layers)
    source = Translations(
        corpus, embeds, config.batch_size, student.config.pad_token_id, config.temperature, config.weights
    )
    validate = None
    if config.validation:
        held_out = ParallelCorpus.prepare(config.validation, tokenizer, **config.data_folder("validation"), **mix)
        targets = embed_english(teacher, reader, held_out, accelerator)

        def validate(task: PooledReading, step: int) -> dict[str, float]:
            return translation_recall(task.student, held_out, targets)

    teacher.cpu()
    trained = optimise(
        PooledReading(student), source, config, "distill", accelerator=accelerator, validate=validate
    ).student
    del teacher

    def write(folder: Path) -> None:
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return save_model(accelerator, config, write)


class PooledReading(nn.Module):
    """The loss of stage 1: the mean squared error of the student's pooled output.

    For m18, it adds the error of the conditioning's first row against the teacher's penultimate layer.

    Args:
        student: with its `pre_LN`.
    """

    def __init__(self, student: RobertaSeriesModelWithTransformation) -> None:
        super().__init__()
        self.student = student

    def forward(self, input_ids: Tensor, attention_mask: Tensor, teacher_embeds: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            input_ids: int64 (batch, length), sentences.
            attention_mask: int64 (batch, length).
            teacher_embeds: float (batch, layers, dim), the teacher's output for their English: of the last layer, and
                for m18 of the penultimate one.
        """
        read = self.student(input_ids, attention_mask=attention_mask)
        loss = F.mse_loss(read.pooler_output.float(), teacher_embeds[:, 0])
        if self.student.transformation_pre is not None:
            loss = loss + F.mse_loss(read.projection_state[:, 0].float(), teacher_embeds[:, 1])
        return loss


class Translations:
    """Batches of sentences in any language, with the teacher's output for their English.

    Args:
        corpus: the sentences.
        embeds: float (distinct English sentences, layers, dim), memory-mapped.
        batch_size: sentences per batch.
        pad_token_id: of the student.
        temperature: of the mix of languages.
        weights: factors for the shares of some languages.
    """

    def __init__(
        self,
        corpus: ParallelCorpus,
        embeds: np.ndarray,
        batch_size: int,
        pad_token_id: int,
        temperature: float = 1.0,
        weights: dict[str, float] | None = None,
    ) -> None:
        self._corpus, self._embeds, self._count, self._pad = corpus, embeds, batch_size, pad_token_id
        self._mix = LanguageMix(corpus.language, corpus.languages, temperature, weights)
        self._lengths = torch.from_numpy(corpus.tokens.lengths)
        logger.info("languages: %s", ", ".join(f"{c} {100 * s:.1f}%" for c, s in self._mix.shares.items()))

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws sentences of similar length."""
        rows = self._mix.draw(POOL * self._count, generator)
        return {"rows": rows[similar_lengths(self._lengths[rows], self._count, generator)]}

    def load(self, drawn: Tensors) -> Tensors:
        """Loads their tokens and the teacher's embeddings."""
        rows = drawn["rows"]
        ids, mask = self._corpus.tokens.padded(rows.tolist(), self._pad)
        targets = self._embeds[self._corpus.target[rows.numpy()]]
        return {
            "input_ids": ids.long(),
            "attention_mask": mask,
            "teacher_embeds": torch.from_numpy(targets).float(),
        }


def embed_english(
    teacher: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: ParallelCorpus,
    accelerator: Accelerator | None = None,
    layers: int = 1,
) -> np.ndarray:
    """The teacher's output for each distinct English sentence, computed once and memory-mapped.

    Returns:
        float16 (sentences, layers, dim), from `teacher_embeds`.
    """

    def compute(start: int, stop: int) -> Tensor:
        return teacher_embeds(teacher, tokenizer, [corpus.english.text(row) for row in range(start, stop)], layers)

    # In the folder of the corpus, which is recreated when it changes.
    file = "teacher.bin" if layers == 1 or not corpus.is_shared else f"teacher-{layers}-layers.bin"
    return fill_rows(
        path_for(corpus.folder / file, teacher, corpus.is_shared),
        len(corpus.english),
        (layers, teacher.config.hidden_size),
        "float16",
        compute,
        accelerator=accelerator,
        description="teacher",
        is_shared=corpus.is_shared,
    )


@torch.no_grad()
def teacher_embeds(
    teacher: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    layers: int = 1,
    batch_size: int = 256,
) -> Tensor:
    """Computes the teacher's EOS states, before CLIP's text projection.

    The teacher is frozen, so each sentence is encoded once, not once per epoch.

    Args:
        teacher: a CLIP's text tower.
        tokenizer: of the teacher.
        sentences: to encode.
        layers: 1 for the last layer; 2 for the penultimate one as well, through the same final LayerNorm.
        batch_size: sentences at a time.

    Returns:
        float32 (sentences, layers, hidden_size), on the CPU.
    """
    rows = []
    for start in range(0, len(sentences), batch_size):
        ids, mask = (t.to(teacher.device) for t in tokenize(tokenizer, sentences[start : start + batch_size]))
        read = teacher(ids, attention_mask=mask, output_hidden_states=layers > 1)
        states = [read.pooler_output]
        if layers > 1:
            before_last = getattr(teacher, "text_model", teacher).final_layer_norm(read.hidden_states[-2])
            states.append(before_last[torch.arange(len(ids)), end_of_text(ids, teacher.config.eos_token_id)])
        rows.append(torch.stack(states, dim=1).float().cpu())
    return torch.cat(rows)


def end_of_text(input_ids: Tensor, eos_token_id: int) -> Tensor:
    """The positions of the EOS tokens, int64 (batch,). OpenAI's configs name a wrong id; the largest is right."""
    return (input_ids if eos_token_id == 2 else (input_ids == eos_token_id).int()).argmax(1)


@torch.no_grad()
def translation_recall(
    student: RobertaSeriesModelWithTransformation, corpus: ParallelCorpus, embeds: np.ndarray, most: int = 1000
) -> dict[str, float]:
    """How often the nearest English sentence is the right one, by language, in percent.

    Args:
        student: to measure, by its pooled output.
        corpus: held-out sentences.
        embeds: the teacher's output for their English, float (distinct English sentences, layers, dim).
        most: sentences per language.

    Returns:
        `r1_en`, `r1_zh`, ...
    """
    references = F.normalize(torch.from_numpy(np.array(embeds[:, 0])).float(), dim=-1)
    recalls = {}
    for number, code in enumerate(corpus.languages):
        rows = np.flatnonzero(corpus.language == number)[:most]
        if code == ENGLISH and len(corpus.languages) > 1 and len(rows) == 0:
            continue
        hits = 0
        for start in range(0, len(rows), 128):
            part = rows[start : start + 128]
            ids, mask = corpus.tokens.padded(part.tolist(), student.config.pad_token_id)
            pooled = student(ids.long().to(student.device), attention_mask=mask.to(student.device)).pooler_output
            nearest = (F.normalize(pooled.float().cpu(), dim=-1) @ references.T).argmax(1)
            hits += int((nearest.numpy() == corpus.target[part]).sum())
        recalls[f"r1_{code}"] = 100 * hits / max(1, len(rows))
    return recalls
