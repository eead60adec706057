import logging

import pytest
import torch
from transformers import XLMRobertaTokenizer

from altdiffusion_clip.prompts import WINDOW, tokenize


@pytest.fixture(scope="module")
def tokenizer(published) -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer.from_pretrained(published / "alt-diffusion-m9-tiny" / "tokenizer")


def test_short_prompts_are_padded_to_the_longest(tokenizer, caplog) -> None:
    ids, mask = tokenize(tokenizer, ["猫", "a dog on a blue background", ""])
    assert ids.shape == mask.shape
    assert mask.sum(1).tolist()[1] == ids.shape[1]
    assert mask.sum(1).tolist()[2] == 2
    assert not caplog.records
    padded, _ = tokenize(tokenizer, ["猫"], pad_to_max=True)
    assert padded.shape == (1, WINDOW)
    assert torch.equal(padded[0, : mask[0].sum()], ids[0, : mask[0].sum()])


def test_a_cut_prompt_warns_with_the_words_that_were_cut(tokenizer, caplog) -> None:
    words = [f"word{i}" for i in range(60)]
    with caplog.at_level(logging.WARNING):
        ids, _ = tokenize(tokenizer, [" ".join(words), "short"])
    assert ids.shape == (2, WINDOW)
    assert len(caplog.records) == 1
    kept = tokenizer.decode(ids[0], skip_special_tokens=True)
    lost = caplog.records[0].args[-1]
    assert (kept + lost).replace(" ", "") == "".join(words)
    assert "word59" in caplog.text


def test_a_tokenizer_that_states_a_longer_window_is_held_to_77(published) -> None:
    tokenizer = XLMRobertaTokenizer.from_pretrained(
        published / "alt-diffusion-m18-tiny" / "tokenizer", model_max_length=512
    )
    assert tokenize(tokenizer, ["long " * 600])[0].shape[1] == WINDOW
