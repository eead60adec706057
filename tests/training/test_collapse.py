"""Why FlagAI's fine-tuning example never learned, and that stage 2 does: batches of 4 from 10 class captions, lr 1e-4.

The example trains everything with Adam at 1e-4 from the first step on, and counts a caption that stands twice in a
batch as a negative of itself. A deep post-LayerNorm text tower, as XLM-R large is, then reads every caption alike, and
the loss is that of a guess among four. The tower here is as deep, and half as wide.
"""

import copy
import json
import math
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.images import load_image
from altdiffusion_clip.prompts.windows import tokenize
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.training.configs import ContrastiveConfig
from altdiffusion_clip.training.contrastive import embed_pictures, train_contrastive
from altdiffusion_clip.training.data.image_text import CaptionedPictures
from tests.pictures import HeldOutPicture, held_out_pictures

pytestmark = pytest.mark.slow

CLASSES = 10
LEARNING_RATE = 1e-4


def pictures_of(seen: bool) -> list[HeldOutPicture]:
    """Two pictures of each class to train on, on two backgrounds, and two of other sizes and at other places."""
    pictures = [picture for picture in held_out_pictures() if picture.concept.index < CLASSES]
    return pictures[0 if seen else 1 :: 2]


def new_scorer() -> AltCLIPScorer:
    """emoji-m18's eyes, and a deep text tower that has read nothing yet."""
    trained = AltCLIPScorer.from_pretrained("emoji-m18")
    config = copy.deepcopy(trained.config)
    config.text_config.update(
        {"num_hidden_layers": 24, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    )
    torch.manual_seed(0)
    scorer = AltCLIPScorer(config)
    for part in ("vision_model", "visual_projection", "text_projection"):
        getattr(scorer, part).load_state_dict(getattr(trained, part).state_dict())
    scorer.logit_scale.data.fill_(math.log(1 / 0.07))
    scorer.processor = trained.processor
    return scorer


def class_captions() -> list[str]:
    return [captions(picture.concept, None, "zh")[0] for picture in pictures_of(seen=True)[::2]]


def accuracy(scorer: AltCLIPScorer) -> float:
    shown = pictures_of(seen=False)
    similarity = scorer.eval().similarity(class_captions(), [picture.path for picture in shown])
    right = torch.tensor([picture.concept.index for picture in shown])
    return (similarity.argmax(0) == right).double().mean().item()


def test_the_plain_loop_stays_at_the_loss_of_a_guess() -> None:
    scorer = new_scorer().train()
    shown = pictures_of(seen=True)
    assert scorer.processor is not None
    images = [load_image(picture.path) for picture in shown]
    pixels = scorer.processor.image_processor(images, return_tensors="pt").pixel_values
    classes = torch.tensor([picture.concept.index for picture in shown])
    ids, mask = tokenize(scorer.processor.tokenizer, class_captions())
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=LEARNING_RATE)
    generator, losses = torch.Generator().manual_seed(0), []
    target = torch.arange(4)
    for _ in range(50):
        rows = torch.randint(len(shown), (4,), generator=generator)
        text = F.normalize(scorer.get_text_features(ids[classes[rows]], mask[classes[rows]]), dim=-1)
        image = F.normalize(scorer.get_image_features(pixels[rows]), dim=-1)
        logits = scorer.logit_scale.exp() * text @ image.T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert min(losses) > math.log(4) - 0.1, "it never gets better than a guess"
    assert statistics.median(losses[-20:]) == pytest.approx(math.log(4), abs=0.2)
    assert spread(scorer, ids, mask) < 1e-3, "every caption is read alike"
    assert accuracy(scorer) < 0.5


def test_stage_2_learns_from_the_same_batches(tmp_path: Path) -> None:
    scorer = new_scorer()
    data = tmp_path / "pictures"
    data.mkdir()
    with (data / "captions.jsonl").open("w", encoding="utf-8") as file:
        for picture in pictures_of(seen=True):
            shutil.copy(picture.path, data)
            said = captions(picture.concept, None, "zh")[0]
            file.write(json.dumps({"image": picture.path.name, "captions": {"zh": said}}, ensure_ascii=False) + "\n")
    assert scorer.processor is not None
    side = scorer.config.vision_config.image_size
    pictures = CaptionedPictures.prepare([data], side, scorer.processor.tokenizer, tmp_path / "data")
    config = ContrastiveConfig(
        output=tmp_path / "run", steps=300, batch_size=4, learning_rate=LEARNING_RATE, warmup_steps=60, cpu=True
    )
    train_contrastive(scorer, pictures, embed_pictures(scorer, pictures), config)
    assert accuracy(scorer) >= 0.9


@torch.no_grad()
def spread(scorer: AltCLIPScorer, ids: Tensor, mask: Tensor) -> float:
    """Mean cosine distance between the captions of different classes."""
    text = F.normalize(scorer.eval().get_text_features(ids, mask), dim=-1)
    return (1 - text @ text.T).mean().item()
