"""The tokenizers of emoji-m9 and emoji-m18, of their captions: CLIP's BPE for the teacher, XLM-R's SentencePiece."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, XLMRobertaTokenizer

MAX_LENGTH = 77
"""Tokens in one window, as in CLIP and in every Stable Diffusion."""


def train_clip_tokenizer(sentences: Iterable[str], vocab_size: int) -> CLIPTokenizer:
    """Trains CLIP's byte-level BPE. Like CLIP's own, it reads any script, and knows only what it was taught."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # Both forms of each byte, so that no character is unknown, in the middle of a word or at its end.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = [*(byte + "</w>" for byte in alphabet), "<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=specials
    )
    # CLIP's pre-tokenizer drops white space; ByteLevel would glue it to the next word, so words go in alone.
    tokenizer.train_from_iterator((word for sentence in sentences for word in sentence.lower().split()), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return CLIPTokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=MAX_LENGTH
    )


def cldr_names(languages: Sequence[str]) -> list[str]:
    """The CLDR names of all emoji, so that SentencePiece knows the letters of words that no caption has yet.

    The package emoji has them in fewer languages than eighteen; of the others there are none.
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
    """Trains a SentencePiece unigram model and writes it to ``folder`` in the layout that XLM-R publishes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=vocab_size,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer
