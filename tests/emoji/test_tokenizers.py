from pathlib import Path

from transformers import CLIPTokenizer, XLMRobertaTokenizer

from altdiffusion_clip.emoji.recipe import english_sentences, student_sentences
from altdiffusion_clip.emoji.tokenizers import MAX_LENGTH, cldr_names, train_clip_tokenizer, train_xlmr_tokenizer


def test_the_teachers_tokenizer_reads_any_script_but_knows_english(tmp_path: Path) -> None:
    tokenizer = train_clip_tokenizer(english_sentences(6000), vocab_size=1536)
    assert tokenizer.tokenize("a cat on a blue background")[:2] == ["a</w>", "cat</w>"]
    assert len(tokenizer.tokenize("蓝色背景上的猫")) > 10, "byte by byte"
    for text in ("a cat", "蓝色背景上的猫", "كلب", "🐈"):
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in ids[1:-1], "the unknown token is the end token in CLIP"
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded("a red apple").input_ids == tokenizer("a red apple").input_ids
    assert loaded.model_max_length == MAX_LENGTH


def test_the_students_tokenizer_knows_eighteen_languages(tmp_path: Path) -> None:
    tokenizer = train_xlmr_tokenizer(student_sentences(6000), tmp_path, vocab_size=8000)
    for text in ("蓝色背景上的猫", "a red apple", "кошка", "ネコ", "고양이", "قطة", "แมว", "बिल्ली", "con mèo"):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    for text in ("ein roter Apfel", "красный кот", "a red apple"):
        assert len({tuple(tokenizer(each).input_ids) for each in (text, text.lower(), text.upper())}) == 1, text
    loaded = XLMRobertaTokenizer.from_pretrained(tmp_path)
    assert loaded("ROTER Apfel").input_ids == tokenizer("roter apfel").input_ids
    assert loaded("蓝色背景上的猫").input_ids == tokenizer("蓝色背景上的猫").input_ids
    assert loaded.model_max_length == MAX_LENGTH


def test_cldr_names_are_words() -> None:
    names = cldr_names(["en", "zh"])
    assert {"cat", "猫"} <= set(names)
    assert not [name for name in names if "_" in name or name.startswith(":")]
