import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.data.parallel import ParallelCorpus


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def said(corpus: ParallelCorpus, tokenizer) -> set[tuple[str, str, str]]:
    """Language, sentence and English of everything."""
    return {
        (
            corpus.languages[corpus.language[row]],
            tokenizer.decode(corpus.tokens[row].tolist(), skip_special_tokens=True),
            corpus.english.text(int(corpus.target[row])),
        )
        for row in range(len(corpus))
    }


def test_each_sentence_knows_its_english_and_english_is_its_own(tokenizer, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [{"en": "cat", "zh": ["猫", "一只猫"]}, {"en": "dog", "ru": "собака"}])
    corpus = ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus")
    assert said(corpus, tokenizer) == {
        ("en", "cat", "cat"),
        ("zh", "猫", "cat"),
        ("zh", "一只猫", "cat"),
        ("en", "dog", "dog"),
        ("ru", "собака", "dog"),
    }


@pytest.mark.parametrize(
    "record",
    [
        {"translation": {"en": "cat", "zh": "猫"}},
        {"english": "cat", "text": "猫", "language": "zh"},
    ],
)
def test_other_peoples_layouts(record: dict[str, object], tokenizer, tmp_path: Path) -> None:
    corpus = ParallelCorpus.prepare([write(tmp_path / "a.jsonl", [record])], tokenizer, tmp_path / "corpus")
    assert ("zh", "猫", "cat") in said(corpus, tokenizer)


def test_equal_english_is_one_sentence(tokenizer, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [{"en": "cat", "zh": "猫"}, {"en": "cat", "ru": "кошка"}])
    corpus = ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus")
    assert len(corpus.english) == 1
    assert len(corpus) == 3


def test_bad_sentences_are_counted(tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records: list[dict[str, object]] = [
        {"en": "cat", "zh": "猫", "ru": "кошка"},
        {"en": "", "zh": "狗"},
        {"en": "cow", "zh": "  "},
        {"zh": "猪"},
        {"en": "pig", "zh": None, "ru": 3},
    ]
    data = write(tmp_path / "a.jsonl", records)
    corpus = ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus", ["zh", "ru"])
    assert corpus.left_out == {"no English": 2, "no zh": 2, "no ru": 2}
    assert "6 left out" in caplog.text
    assert len(corpus) == 5


def test_a_language_that_is_not_there(tokenizer, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [{"en": "cat", "zh": "猫"}])
    with pytest.raises(UserError, match=r"no sentence in 'ko' in .*; there are en"):
        ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus", ["ko"])
    assert not (tmp_path / "corpus").exists()


def test_nothing_at_all(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="records need en and another language"):
        ParallelCorpus.prepare([write(tmp_path / "a.jsonl", [])], tokenizer, tmp_path / "corpus")


def test_long_sentences_are_cut_and_said(tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(tmp_path / "a.jsonl", [{"en": "cat", "zh": "蓝色背景上的猫" * 60}])
    corpus = ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus")
    assert corpus.cut == 1
    assert "1 of 2 sentences have more than 77 tokens and are cut" in caplog.text
    assert corpus.tokens.lengths.max() == 77
    assert corpus.tokens[1][-1] == tokenizer.eos_token_id


def test_it_is_read_again_when_a_file_changes(tokenizer, tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", [{"en": "cat", "zh": "猫"}])
    ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus")
    (tmp_path / "corpus" / "teacher.bin").write_bytes(b"computed from it")
    write(data, [{"en": "dog", "zh": "狗"}, {"en": "cow", "zh": "奶牛"}])
    assert len(ParallelCorpus.prepare([data], tokenizer, tmp_path / "corpus").english) == 2
    assert not (tmp_path / "corpus" / "teacher.bin").exists()
