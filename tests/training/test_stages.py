"""Teacher, student and scorer, each trained for a moment on a world of four words."""

from pathlib import Path

import torch
from transformers import AltCLIPConfig, CLIPConfig, CLIPModel

from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.training.clip import ImageTextBatch, train_clip
from altdiffusion_clip.training.contrastive import TextImageBatch, train_contrastive
from altdiffusion_clip.training.distill import ParallelBatch, train_distill
from altdiffusion_clip.training.loop import LoopConfig
from tests.conftest import small_encoder

WORDS = torch.tensor([[0, 10, 2], [0, 11, 2], [0, 12, 2], [0, 13, 2]])
MASK = torch.ones_like(WORDS)
PICTURES = torch.eye(4)[:, None, :, None].expand(4, 3, 4, 8).repeat_interleave(2, 2)  # a bright bar at one of 4 heights
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 8, "patch_size": 4}


def test_a_clip_learns_pairs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 0}
    clip = CLIPModel(CLIPConfig(text_config={**text, "pad_token_id": 1}, vision_config=VISION, projection_dim=16))

    def batch(generator: torch.Generator) -> ImageTextBatch:
        rows = torch.randint(4, (8,), generator=generator)  # repeats, so the plain loss would be wrong
        return ImageTextBatch(WORDS[rows], MASK[rows], PICTURES[rows], rows[:, None] == rows[None, :])

    train_clip(clip, batch, LoopConfig(steps=80, learning_rate=3e-3, warmup_steps=5), tmp_path / "clip.pt")
    with torch.no_grad():
        logits = clip(WORDS, PICTURES, MASK).logits_per_image
    assert logits.argmax(1).tolist() == [0, 1, 2, 3]


def test_a_student_learns_its_teacher(tmp_path: Path) -> None:
    student = small_encoder("m9")
    torch.manual_seed(0)
    targets = torch.randn(4, 24)

    def batch(generator: torch.Generator) -> ParallelBatch:
        rows = torch.randint(4, (8,), generator=generator)
        return ParallelBatch(WORDS[rows], MASK[rows], targets[rows])

    config = LoopConfig(steps=100, learning_rate=3e-3, warmup_steps=5)
    train_distill(student, batch, config, tmp_path / "student.pt")
    with torch.no_grad():
        error = (student(WORDS, MASK).pooler_output - targets).square().mean()
    assert error < 0.2


def test_the_vision_half_is_frozen_in_stage_2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": 120, "project_dim": 24, "max_position_embeddings": 90, "pad_token_id": 1}
    scorer = AltCLIPScorer(AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16))
    frozen = {k: v.clone() for k, v in scorer.state_dict().items() if k.startswith(("vision", "visual"))}
    features = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)

    def batch(generator: torch.Generator) -> TextImageBatch:
        rows = torch.randint(4, (8,), generator=generator)
        return TextImageBatch(WORDS[rows], MASK[rows], features[rows], rows[:, None] == rows[None, :])

    config = LoopConfig(steps=80, learning_rate=1e-3, warmup_steps=10)
    train_contrastive(scorer, batch, config, tmp_path / "scorer.pt")
    with torch.no_grad():
        similarity = scorer.get_text_features(WORDS, MASK) @ features.T
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3]
    for name, tensor in frozen.items():
        assert torch.equal(scorer.state_dict()[name], tensor), name
