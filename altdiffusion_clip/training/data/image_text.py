"""Captioned pictures: which there are, what is said of them in which language, and what is true of what."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError, load_image
from altdiffusion_clip.prompts.normalising import normalise
from altdiffusion_clip.prompts.windows import WINDOW
from altdiffusion_clip.training.data.arrays import Ragged, RaggedWriter, prepared, stamp_of
from altdiffusion_clip.training.data.languages import LanguageMix, similar_lengths
from altdiffusion_clip.training.data.parallel import fingerprint
from altdiffusion_clip.training.data.records import LeftOut, read_records

logger = logging.getLogger(__name__)
CAPTIONS_FILE = "captions.jsonl"


class Captioned(Protocol):
    """What the stages ask of captioned pictures; `CaptionedPictures` reads them from files.

    Attributes:
        folder: for what is computed from the pictures once.
        side: of each picture, in pixels.
        languages: codes.
        tokens: token ids of each text, by its number.
    """

    folder: Path
    side: int

    @property
    def languages(self) -> Sequence[str]:
        """Codes."""

    @property
    def tokens(self) -> Any:
        """Rows of token ids."""

    def __len__(self) -> int: ...

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws pictures and one caption of each: numbers of pictures and of texts, int64 (count,) both."""

    def draw_similar(self, count: int, pool: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws so that little of a batch is padding, out of `pool` batches."""

    def tokenised(self, texts: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
        """Token ids of some texts and their mask, int64 (texts, longest)."""

    def positives(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Which texts are true of which pictures: bool (texts, pictures)."""

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Some pictures: uint8 (pictures, 3, side, side)."""


class CaptionedPictures:
    """Pictures of one size and their captions, read once and kept memory-mapped.

    Equal captions are one text, so that a batch knows which of its pictures a caption is true of, and not only which
    it was drawn with.

    Attributes:
        pixels: uint8 (pictures, 3, side, side).
        texts: the distinct captions.
        tokens: their token ids, int32.
        of_picture: rows in `texts` of all captions of each picture, int64.
        languages: codes.
        left_out: how many records were left out, by reason.
    """

    def __init__(self, folder: Path, temperature: float = 1.0, weights: dict[str, float] | None = None) -> None:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.side: int = meta["side"]
        self.languages: list[str] = meta["languages"]
        self.left_out: dict[str, int] = meta["left_out"]
        self.texts = Ragged(folder / "texts")
        self.tokens = Ragged(folder / "tokens")
        self.of_picture = Ragged(folder / "of_picture")
        # Of each picture and language: the picture, and where in its row of `of_picture` the captions lie.
        groups = np.fromfile(folder / "groups.bin", np.int64).reshape(-1, 4)
        self._group_picture, self._group_first, self._group_size = (
            torch.from_numpy(groups[:, i].copy()) for i in (0, 2, 3)
        )
        self._group_language = groups[:, 1]
        self.mix = LanguageMix(groups[:, 1].astype(np.uint8), self.languages, temperature, weights)
        self.pixels = np.memmap(
            folder / "pixels.bin", np.uint8, "r", shape=(len(self.of_picture), 3, self.side, self.side)
        )

    def __len__(self) -> int:
        return len(self.of_picture)

    @classmethod
    def prepare(
        cls,
        data: Sequence[Path],
        side: int,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        *,
        languages: Sequence[str] = (),
        temperature: float = 1.0,
        weights: dict[str, float] | None = None,
        accelerator: Accelerator | None = None,
    ) -> "CaptionedPictures":
        """Reads captions and pictures, once.

        Args:
            data: JSONL, TSV or Parquet files, or folders with a `captions.jsonl`. Records have `image`, a path from
                the file's folder, and `captions`: an object of lists by language code, or one text (of `language`,
                or "en").
            side: pictures are scaled so that the shorter side is this, and cut to a square around the middle.
            tokenizer: of the text encoder.
            folder: to keep everything in.
            languages: codes to read; all if empty.
            temperature: of the mix of languages; see `LanguageMix`.
            weights: factors on the shares of some languages.
            accelerator: of the run; its main process reads.

        Raises:
            UserError: a file cannot be read, or nothing is left.
        """
        files = [path / CAPTIONS_FILE if path.is_dir() else path for path in data]
        for path in files:
            if not path.is_file():
                raise UserError(f"there is no {path}; write a JSON object a line: image, captions by language")
        made_from = {
            "files": [stamp_of(path) for path in files],
            "side": side,
            "tokenizer": fingerprint(tokenizer),
            "languages": list(languages),
        }
        prepared(folder, made_from, lambda place: _write(files, side, tokenizer, place, languages), accelerator)
        return cls(folder, temperature, weights)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws pictures and one caption of each: rows of pictures and of texts, int64 (count,) both."""
        groups = self.mix.draw(count, generator)
        pictures, first, size = self._group_picture[groups], self._group_first[groups], self._group_size[groups]
        places = first + (torch.rand(count, generator=generator, dtype=torch.float64) * size).long()
        texts = [self.of_picture[p][q] for p, q in zip(pictures.tolist(), places.tolist(), strict=True)]
        return pictures, torch.tensor(texts)

    def draw_similar(self, count: int, pool: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws pictures and one caption of each, captions of nearly one length out of `pool` batches."""
        pictures, texts = self.draw(pool * count, generator)
        chosen = similar_lengths(torch.from_numpy(self.tokens.lengths)[texts], count, generator)
        return pictures[chosen], texts[chosen]

    def first_captions(self, language: str) -> list[int | None]:
        """The first caption of each picture in a language, as a row of `texts`; None where there is none."""
        first: list[int | None] = [None] * len(self)
        for group in np.flatnonzero(self._group_language == self.languages.index(language)):
            picture = int(self._group_picture[group])
            first[picture] = int(self.of_picture[picture][int(self._group_first[group])])
        return first

    def tokenised(self, texts: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
        """Token ids of some texts and their mask, int64 (texts, longest)."""
        ids, mask = self.tokens.padded(texts.tolist(), pad_token_id)
        return ids.long(), mask

    def positives(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Which texts are true of which pictures: bool (texts, pictures)."""
        places: dict[int, list[int]] = {}  # of each caption, the pictures that have it
        for column, picture in enumerate(pictures.tolist()):
            for text in self.of_picture[picture].tolist():
                places.setdefault(text, []).append(column)
        true = torch.zeros(len(texts), len(pictures), dtype=torch.bool)
        for row, text in enumerate(texts.tolist()):
            true[row, places.get(text, [])] = True
        return true

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Some pictures: uint8 (pictures, 3, side, side)."""
        return torch.from_numpy(self.pixels[pictures.numpy()])


def square(image: Image.Image, side: int) -> Image.Image:
    """A picture scaled so that its shorter side is `side`, and cut to the square in the middle."""
    if image.size != (side, side):
        scale = side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image


def _write(
    files: Sequence[Path], side: int, tokenizer: PreTrainedTokenizerBase, folder: Path, languages: Sequence[str]
) -> None:
    left_out, codes = LeftOut(), list(languages)
    rows: dict[str, int] = {}
    pictures: list[Path] = []
    groups: list[tuple[int, int, int, int]] = []
    captions_of: list[list[int]] = []
    for file in files:
        for place, record in read_records(file, left_out):
            said = _captions(record)
            said = {code: s for code, s in said.items() if s and (not languages or code in languages)}
            name = record.get("image")
            if not isinstance(name, str) or not name:
                left_out.add("no image", place)
            elif not said:
                left_out.add("no caption", place)
            elif not (file.parent / name).is_file():
                left_out.add("image file missing", f"{place}, {name}")
            else:
                for code in languages or ():
                    if code not in said:
                        left_out.add(f"no caption in {code}", place)
                codes += [code for code in said if code not in codes]
                mine: list[int] = []
                for code, sentences in said.items():
                    groups.append((len(pictures), codes.index(code), len(mine), len(sentences)))
                    mine += [rows.setdefault(sentence, len(rows)) for sentence in sentences]
                captions_of.append(mine)
                pictures.append(file.parent / name)
    good = _write_pixels(pictures, side, folder, left_out)
    if len(left_out):
        logger.warning("captioned pictures: %s", left_out)
    if not good:
        raise UserError(f"no picture with a caption in {', '.join(map(str, files))}: {left_out}")
    with RaggedWriter(folder / "texts", "uint8") as texts, RaggedWriter(folder / "tokens", "int32") as tokens:
        sentences = list(rows)
        for start in range(0, len(sentences), 4096):
            batch = sentences[start : start + 4096]
            for sentence, ids in zip(batch, tokenizer(batch, verbose=False).input_ids, strict=True):
                texts.add_text(sentence)
                tokens.add(ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]])
    with RaggedWriter(folder / "of_picture", "int64") as of_picture:
        for old in good:
            of_picture.add(captions_of[old])
    new = {old: place for place, old in enumerate(good)}
    kept = [(new[picture], *rest) for picture, *rest in groups if picture in new]
    np.array(kept, np.int64).tofile(folder / "groups.bin")
    meta = {"side": side, "languages": codes, "left_out": left_out.as_dict()}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _write_pixels(pictures: Sequence[Path], side: int, folder: Path, left_out: LeftOut) -> list[int]:
    """Writes the pictures that can be read, and returns their places."""
    good: list[int] = []
    with (folder / "pixels.bin").open("wb") as file:
        for place, path in enumerate(pictures):
            try:
                pixels = np.asarray(square(load_image(path), side), np.uint8)
            except ImageError as error:
                left_out.add("image cannot be read", f"{path}: {error}")
                continue
            np.ascontiguousarray(pixels.transpose(2, 0, 1)).tofile(file)
            good.append(place)
    return good


def _captions(record: dict[str, object]) -> dict[str, list[str]]:
    captions = record.get("captions", record.get("caption", record.get("text")))
    if not isinstance(captions, dict):
        captions = {str(record.get("language", "en")): captions}
    said: dict[str, list[str]] = defaultdict(list)
    for code, value in captions.items():
        for sentence in value if isinstance(value, list) else [value]:
            if isinstance(sentence, str) and sentence.strip():
                said[str(code)].append(normalise(sentence).strip())
    return dict(said)
