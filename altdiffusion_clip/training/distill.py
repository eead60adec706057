"""Stage 1, teacher learning: the student's pooled reading of any language becomes the teacher's of English.

AltCLIP (arXiv 2211.06679, section 3.1), after multilingual sentence embeddings (arXiv 2004.09813).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from altdiffusion_clip.prompts import tokenize
from altdiffusion_clip.text_encoder import RobertaSeriesModelWithTransformation
from altdiffusion_clip.training.loop import LoopConfig, device_of, optimise, to_device


@dataclass(frozen=True)
class ParallelBatch:
    """Sentences in any language, and the teacher's reading of their English.

    Attributes:
        input_ids: int64 (batch, length), of the student's tokenizer.
        attention_mask: int64 (batch, length).
        teacher_embeds: float (batch, project_dim).
    """

    input_ids: Tensor
    attention_mask: Tensor
    teacher_embeds: Tensor


@torch.no_grad()
def teacher_embeds(
    teacher: CLIPTextModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], batch_size: int = 256
) -> Tensor:
    """The teacher's EOS states, before CLIP's text projection: float (sentences, hidden_size).

    The teacher is frozen, so each sentence is read once and not once per epoch.
    """
    rows = []
    for start in range(0, len(sentences), batch_size):
        ids, mask = (t.to(device_of(teacher)) for t in tokenize(tokenizer, sentences[start : start + batch_size]))
        rows.append(teacher(ids, attention_mask=mask).pooler_output.cpu())
    return torch.cat(rows)


def train_distill(
    student: RobertaSeriesModelWithTransformation,
    batch: Callable[[torch.Generator], ParallelBatch],
    config: LoopConfig,
    checkpoint: Path,
) -> RobertaSeriesModelWithTransformation:
    """Trains the student with mean squared error against the teacher.

    Args:
        student: trained in place; needs its `pre_LN`.
        batch: draws English-English and translation-English pairs.
        config: of the loop.
        checkpoint: file to save to and to resume from.
    """

    def loss_at(generator: torch.Generator) -> Tensor:
        drawn = to_device(batch(generator), device_of(student))
        pooled = student(drawn.input_ids, attention_mask=drawn.attention_mask).pooler_output
        return F.mse_loss(pooled, drawn.teacher_embeds)

    return optimise(student, loss_at, config, checkpoint, "distill")
