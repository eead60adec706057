"""Texts of more tokens than a judge reads."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import rank
from altdiffusion_clip.judges.names import load_judge, load_panel
from tests.judges.checkpoints import write_clip
from tests.pictures import held_out_pictures

LONG = "a cat on a blue background, which sits there and looks at the green turtle. " * 12
SHORT = "a cat on a blue background"


def features(way: str, *texts: str) -> torch.Tensor:
    judge = load_judge("emoji-m18")
    judge.read_at_length(way)
    return judge.text_features(list(texts))


def test_short_texts_are_read_as_ever() -> None:
    expected = features("truncate", SHORT, "猫")
    for way in ("window-mean", "window-max"):
        torch.testing.assert_close(features(way, SHORT, "猫"), expected)


def test_no_word_is_lost_between_parts_and_each_is_read_whole() -> None:
    judge = load_judge("emoji-m18")
    parts = judge.windows(LONG)
    assert len(parts) > 2
    assert "".join(parts).replace(" ", "") == LONG.replace(" ", "")
    assert all(len(judge.tokenizer(part).input_ids) <= judge.max_length for part in parts)
    assert all(part[-1] in ".," for part in parts), "cut after a punctuation mark"


def test_a_mean_is_that_of_the_parts() -> None:
    judge = load_judge("emoji-m18")
    parts = features("truncate", *judge.windows(LONG))
    torch.testing.assert_close(features("window-mean", LONG)[0], F.normalize(parts.mean(0), dim=-1))


def test_the_best_part_counts(tmp_path: Path) -> None:
    pictures = [picture.path for picture in held_out_pictures()[:8]]
    judge = load_judge("emoji-m18")
    parts = judge.windows(LONG)
    expected = AltCLIPScorer.from_pretrained("emoji-m18").similarity(parts, pictures).amax(0)
    ranking = rank(LONG, pictures, load_panel("emoji-m18", long_text="window-max"))
    found = {image.index: image.score for image in ranking}
    assert [found[place] for place in range(8)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_xlm_r_reads_all_of_it_where_it_has_places(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = published / "alt-clip-m18-tiny"
    scorer = AltCLIPScorer.from_pretrained(folder)
    places = scorer.config.text_config.max_position_embeddings - 2
    judge = load_judge(str(folder))
    if places <= 78:
        with pytest.raises(UserError, match="reads 77 tokens at most; take window-mean or window-max"):
            judge.read_at_length("full")
        return
    judge.read_at_length("full")
    text = "a cat on a blue background " * 20
    ids = judge.tokenizer(text, return_tensors="pt", truncation=True, max_length=places)
    expected = F.normalize(scorer.get_text_features(ids.input_ids, ids.attention_mask), dim=-1)
    torch.testing.assert_close(judge.text_features([text]), expected, atol=1e-5, rtol=0)
    assert not caplog.records, "nothing is cut"


def test_ways_are_told_apart_in_caches() -> None:
    prints = set()
    for way in ("truncate", "window-mean", "window-max"):
        judge = load_judge("emoji-m18")
        judge.read_at_length(way)
        prints.add(judge.fingerprint())
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("way", "message"),
    [("full", "reads 77 tokens at most; take window-mean or window-max"), ("whole", "there is no way 'whole'")],
)
def test_what_cannot_be_done_is_one_line(way: str, message: str, tmp_path: Path) -> None:
    for name in ("emoji-m18", str(write_clip(tmp_path / "clip"))):
        with pytest.raises(UserError, match=message.replace("77", r"\d+")):
            load_panel(name, long_text=way)
    with pytest.raises(UserError, match="omit --long-text"):
        load_panel(lambda texts, pictures: [0.0] * len(texts), long_text="window-mean")


def test_a_clip_reads_in_parts_too(tmp_path: Path) -> None:
    panel = load_panel(str(write_clip(tmp_path / "clip")), long_text="window-mean")
    (judge,) = panel.members
    assert len(judge.windows(LONG)) > 1
    assert Bench(panel).encoder.texts([LONG]).shape == (1, 24)
