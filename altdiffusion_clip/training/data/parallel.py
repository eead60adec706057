"""Parallel sentences: English with translations, tokenised once and memory-mapped."""

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.windows import WINDOW, cut_to_window
from altdiffusion_clip.sources.places import stamp_of
from altdiffusion_clip.sources.records import Record
from altdiffusion_clip.training.data.arrays import Ragged, RaggedWriter, prepared
from altdiffusion_clip.training.data.distinct import DistinctTexts
from altdiffusion_clip.training.data.records import LeftOut, files_of, places_of, read_records

logger = logging.getLogger(__name__)

ENGLISH = "en"
_TOKENISED_AT_ONCE = 4096


class ParallelCorpus:
    """Sentences in many languages, each with its English translation.

    Attributes:
        tokens: the student's token ids of each sentence, int32.
        english: the distinct English sentences, as text.
        target: index into `english` of each sentence, int64 (sentences,).
        language: index into `languages` of each sentence, uint8 (sentences,).
        languages: codes.
        left_out: numbers of sentences that were left out, by reason.
        cut: number of sentences that were too long and were cut.
        is_shared: whether other runs may use the folder.
    """

    def __init__(self, folder: Path, is_shared: bool = False) -> None:
        self.is_shared = is_shared
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.tokens = Ragged(folder / "tokens")
        self.english = Ragged(folder / "english")
        self.target = np.memmap(folder / "target.bin", np.int64, "r")
        self.language = np.fromfile(folder / "language.bin", np.uint8)
        self.languages: list[str] = meta["languages"]
        self.left_out: dict[str, int] = meta["left_out"]
        self.cut: int = meta["cut"]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def prepare(
        cls,
        data: Sequence[str | Path],
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        languages: Sequence[str] = (),
        accelerator: Accelerator | None = None,
        encoding: str = "",
        cache: Path | None = None,
    ) -> "ParallelCorpus":
        """Reads files, once.

        Args:
            data: tables (paths, URLs, patterns) or Moses corpora. Their fields are language codes (`en` and others; a
                list has several translations), or `translation` with such an object, or `english`, `text` and
                `language`.
            tokenizer: of the student.
            folder: for the corpus.
            languages: codes to read; empty for all. English is always read, and paired with itself.
            accelerator: of the run. Its main process reads.
            encoding: of texts that are not UTF-8 and have no byte-order mark.
            cache: as in `prepared`.

        Raises:
            UserError: a file cannot be read, no sentences are left, or a language is missing.
        """
        places = places_of(data)
        made_from = {
            "data": [[file, stamp_of(file)] for place in places for file in files_of(place)],
            "tokenizer": fingerprint(tokenizer),
            "languages": list(languages),
            "encoding": encoding,
        }

        def write(into: Path) -> None:
            _write(places, tokenizer, into, languages, encoding)

        corpus = cls(prepared(folder, made_from, write, accelerator, cache), cache is not None)
        if corpus.cut:
            logger.warning("%d of %d sentences have more than %d tokens and are cut", corpus.cut, len(corpus), WINDOW)
        return corpus


def _write(
    places: Sequence[str], tokenizer: PreTrainedTokenizerBase, folder: Path, languages: Sequence[str], encoding: str
) -> None:
    left_out, codes, cut = LeftOut(), [ENGLISH], 0
    with (
        RaggedWriter(folder / "tokens", "int32") as tokens,
        RaggedWriter(folder / "english", "uint8") as english,
        DistinctTexts(folder / "seen.sqlite") as distinct,
        (folder / "target.bin").open("wb") as target,
        (folder / "language.bin").open("wb") as language,
    ):
        for batch in _batches(_sentences(places, left_out, languages, distinct, encoding), _TOKENISED_AT_ONCE):
            encoded = tokenizer([sentence for _, _, sentence in batch], max_length=None, verbose=False).input_ids
            for (source, code, _), ids in zip(batch, encoded, strict=True):
                row, text = source
                if row == len(english):
                    english.add_text(text)
                if code not in codes:
                    codes.append(code)
                cut += len(ids) > WINDOW
                tokens.add(cut_to_window(ids))
                array("q", (row,)).tofile(target)
                array("B", (codes.index(code),)).tofile(language)
        count = len(tokens)
    if len(left_out):
        logger.warning("parallel data: %s", left_out)
    if not count:
        raise UserError(f"no sentences in {', '.join(places)}; records need {ENGLISH} and another language")
    for code in languages:
        if code not in codes:
            raise UserError(f"no sentence in {code!r} in {', '.join(places)}; there are {', '.join(codes)}")
    meta = {"languages": codes, "left_out": left_out.as_dict(), "cut": cut, "count": count}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _sentences(
    places: Sequence[str], left_out: LeftOut, languages: Sequence[str], distinct: DistinctTexts, encoding: str
) -> Iterator[tuple[tuple[int, str], str, str]]:
    """Each sentence with its language code and its English, as an index among distinct sentences and as text."""
    for table in places:
        for place, record in read_records(table, left_out, encoding):
            said = _by_language(record)
            sources = said.pop(ENGLISH, [])
            if not sources:
                left_out.add("no English", place)
                continue
            wanted = {c: s for c, s in said.items() if not languages or c in languages}
            for code in languages or wanted:
                if code != ENGLISH and not wanted.get(code):
                    left_out.add(f"no {code}", place)
            english = []
            for source in sources:
                row, is_new = distinct.number(source)
                english.append((row, source))
                if is_new:
                    yield english[-1], ENGLISH, source
            for code, sentences in wanted.items():
                for number, sentence in enumerate(sentences):
                    yield english[number % len(english)], code, sentence


def _by_language(record: Record) -> dict[str, list[str]]:
    """The sentences of a record by language code, without empty ones."""
    if isinstance(record.get("translation"), dict):
        record = record["translation"]
    elif {"english", "text", "language"} <= record.keys():
        record = {ENGLISH: record["english"], str(record["language"]): record["text"]}
    said: dict[str, list[str]] = {}
    for code, value in record.items():
        sentences = value if isinstance(value, list) else [value]
        said[str(code)] = [normalise(s).strip() for s in sentences if isinstance(s, str) and s.strip()]
    return said


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A fingerprint of a tokenizer: the digest of its vocabulary."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.blake2b(vocabulary.encode("utf-8"), digest_size=16).hexdigest()


def _batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
