"""Trains tokenizers on captions: CLIP's BPE for the teacher, and XLM-R's SentencePiece for the student."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, XLMRobertaTokenizer

MAX_LENGTH = 77
"""Tokens per window, as in CLIP and every Stable Diffusion."""


def train_clip_tokenizer(sentences: Iterable[str], vocab_size: int) -> CLIPTokenizer:
    """Trains CLIP's byte-level BPE. Like CLIP's own, it reads any script, but knows only words it was trained on."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # Both forms of each byte, so that no character is unknown in the middle or at the end of a word.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = [*(byte + "</w>" for byte in alphabet), "<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=specials
    )
    # CLIP's pre-tokenizer drops white space. ByteLevel would attach it to the next word, so words go in one by one.
    tokenizer.train_from_iterator((word for sentence in sentences for word in sentence.lower().split()), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return CLIPTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=MAX_LENGTH
    )


def cldr_names(languages: Sequence[str]) -> list[str]:
    """The CLDR names of all emoji, so that SentencePiece knows the letters of words that no caption has.

    The package `emoji` lacks some of the eighteen languages, which get no names.
    """
    import emoji  # of the `train` extra

    there = [language for language in languages if language in emoji.LANGUAGES]
    for language in there:
        emoji.config.load_language(language)
    return [
        data[language].strip(":").replace("_", " ")
        for data in emoji.EMOJI_DATA.values()
        for language in there
        if data["status"] == emoji.STATUS["fully_qualified"] and language in data
    ]


def train_xlmr_tokenizer(sentences: Iterable[str], folder: Path, vocab_size: int) -> XLMRobertaTokenizer:
    """Trains a SentencePiece unigram model and writes it to ``folder`` in XLM-R's layout.

    Unlike XLM-R's own, it folds case, because a small model hardly learns capitals from examples.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer
