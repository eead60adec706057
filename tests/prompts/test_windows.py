import logging

import pytest
import torch
from transformers import XLMRobertaTokenizer

from altdiffusion_clip.prompts.weights import parse_weights
from altdiffusion_clip.prompts.windows import WINDOW, split_into_windows, tokenize


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


class TestWindows:
    @pytest.mark.parametrize("prompt", ["", "猫", "  two  spaces ", "قطة زرقاء", "ﾌﾙ width", "word " * 300])
    def test_one_window_holds_what_the_tokenizer_gives(self, prompt: str, tokenizer) -> None:
        windows = split_into_windows(tokenizer, parse_weights(prompt))
        expected, _ = tokenize(tokenizer, [prompt], pad_to_max=True)
        assert torch.equal(windows.input_ids, expected)
        assert (windows.weights == 1).all()

    def test_weights_lie_on_the_tokens_of_their_words(self, tokenizer) -> None:
        windows = split_into_windows(tokenizer, parse_weights("a (red:1.5) apple"))
        plain = split_into_windows(tokenizer, parse_weights("a red apple"))
        assert torch.equal(windows.input_ids, plain.input_ids)
        weighted = windows.input_ids[windows.weights == 1.5]
        assert tokenizer.decode(weighted).strip() == "red"

    def test_tokens_across_a_bracket_have_the_mean_weight_of_their_characters(self, tokenizer) -> None:
        plain = split_into_windows(tokenizer, parse_weights("background"))
        halved = split_into_windows(tokenizer, parse_weights("(backg:2)round"))
        assert torch.equal(halved.input_ids, plain.input_ids)
        count = int((plain.input_ids != tokenizer.pad_token_id).sum()) - 2
        offsets = tokenizer("background", add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        expected = [sum(2 if i < 5 else 1 for i in range(*pair)) / (pair[1] - pair[0]) for pair in offsets]
        assert halved.weights[0, 1 : 1 + count].tolist() == pytest.approx(expected)

    def test_long_prompts_take_several_and_lose_nothing(self, tokenizer, caplog) -> None:
        words = [f"word{i}" for i in range(60)]
        windows = split_into_windows(tokenizer, parse_weights(" ".join(words)), most=9)
        assert windows.input_ids.shape[0] > 1
        assert not caplog.records
        kept = "".join(tokenizer.decode(ids, skip_special_tokens=True) for ids in windows.input_ids)
        assert kept.replace(" ", "") == "".join(words)
        for ids in windows.input_ids:
            assert ids[0] == tokenizer.cls_token_id
            assert (ids == tokenizer.sep_token_id).sum() == 1

    @pytest.mark.parametrize("sentence", ["a dog on a blue background, ", "雪山下的红色小屋，", "قطة زرقاء، "])
    def test_a_window_ends_after_a_mark(self, sentence: str, tokenizer) -> None:
        one = len(tokenizer(sentence, add_special_tokens=False).input_ids)
        windows = split_into_windows(tokenizer, parse_weights(sentence * 30), most=30)
        tokens = [int((ids != tokenizer.pad_token_id).sum()) - 2 for ids in windows.input_ids]
        assert all(75 - one <= count <= 75 for count in tokens[:-1])
        beginnings = {tokenizer.decode(ids, skip_special_tokens=True).strip()[:4] for ids in windows.input_ids}
        assert len(beginnings) == 1

    def test_what_is_beyond_the_last_window_is_named(self, tokenizer, caplog) -> None:
        words = [f"word{i}" for i in range(100)]
        with caplog.at_level(logging.WARNING):
            windows = split_into_windows(tokenizer, parse_weights(" ".join(words)), most=2)
        assert windows.input_ids.shape == (2, WINDOW)
        assert "word99" in caplog.records[0].args[-1]
        kept = "".join(tokenizer.decode(ids, skip_special_tokens=True) for ids in windows.input_ids)
        assert (kept + caplog.records[0].args[-1]).replace(" ", "") == "".join(words)
