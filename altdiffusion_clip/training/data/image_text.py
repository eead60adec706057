"""Captioned pictures: an index of pictures and captions by language, and which captions are true of which pictures."""

import json
import logging
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import ImageError
from altdiffusion_clip.prompts.windows import cut_to_window
from altdiffusion_clip.sources.parquet import InParquet
from altdiffusion_clip.sources.pictures import Located, StoredImage, decode
from altdiffusion_clip.sources.places import stamp_of
from altdiffusion_clip.sources.retries import PassingImageError
from altdiffusion_clip.training.data.arrays import Ragged, RaggedWriter, fill_rows, prepared
from altdiffusion_clip.training.data.captioned import RETRIES, Captions, is_missing, read_captions
from altdiffusion_clip.training.data.distinct import DistinctTexts
from altdiffusion_clip.training.data.languages import LanguageMix, similar_lengths
from altdiffusion_clip.training.data.parallel import fingerprint
from altdiffusion_clip.training.data.records import LeftOut, places_of
from altdiffusion_clip.training.machines import is_main

logger = logging.getLogger(__name__)
DRAFT = 1.5
"""JPEGs are decoded to at least this multiple of the training side, which is much faster than full size."""

_TOKENISED_AT_ONCE = 4096
_GROUPS_AT_ONCE = 65_536
_UNREADABLE = "image cannot be read"


class Captioned(Protocol):
    """The interface of captioned pictures for the stages. `CaptionedPictures` reads them from files.

    Attributes:
        folder: for what is computed once from the pictures.
        side: of the pictures, in pixels.
        is_shared: whether other runs may use the folder.
        languages: codes.
        tokens: token ids of each text.
    """

    folder: Path
    side: int
    is_shared: bool

    @property
    def languages(self) -> Sequence[str]:
        """Codes."""

    @property
    def tokens(self) -> Any:
        """Rows of token ids."""

    def __len__(self) -> int: ...

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws random pictures with one caption each: indices of pictures and of texts, both int64 (count,)."""

    def draw_similar(self, count: int, pool: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws captions of similar length out of `pool` batches, so that batches have little padding."""

    def tokenised(self, texts: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some texts, int64 (texts, longest)."""

    def positives(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Which texts are true of which pictures: bool (texts, pictures)."""

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Loads some pictures: uint8 (pictures, 3, side, side)."""


class CaptionedPictures:
    """An index of captioned pictures. Pictures are read and decoded on demand, in the process that needs them.

    Equal captions are one text, so a batch knows all pictures that a caption is true of, not only the one it was drawn
    with.

    Attributes:
        texts: distinct captions.
        tokens: their token ids, int32.
        of_picture: indices into `texts` of each picture's captions, int64.
        languages: codes.
        left_out: numbers of records that were left out, by reason.
        kept: which pictures are used, bool (pictures,): all but those given to `leave_out`.
        is_shared: whether other runs may use the folder.
    """

    def __init__(
        self,
        folder: Path,
        temperature: float = 1.0,
        weights: dict[str, float] | None = None,
        is_shared: bool = False,
    ) -> None:
        self.is_shared = is_shared
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.side: int = meta["side"]
        self.languages: list[str] = meta["languages"]
        self.left_out: dict[str, int] = meta["left_out"]
        self.texts = Ragged(folder / "texts")
        self.tokens = Ragged(folder / "tokens")
        self.of_picture = Ragged(folder / "of_picture")
        self._places = Ragged(folder / "places")
        # For each picture and language: the picture, the language, and the position of the captions in `of_picture`.
        self._groups = np.memmap(folder / "groups.bin", np.int64, "r").reshape(-1, 4)
        self._temperature, self._weights = temperature, weights
        self.kept = np.ones(len(self), bool)
        self._mix_kept()

    def __len__(self) -> int:
        return len(self.of_picture)

    @classmethod
    def prepare(
        cls,
        data: Sequence[str | Path],
        side: int,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        *,
        languages: Sequence[str] = (),
        temperature: float = 1.0,
        weights: dict[str, float] | None = None,
        accelerator: Accelerator | None = None,
        encoding: str = "",
        cache: Path | None = None,
    ) -> "CaptionedPictures":
        """Reads all captions, and the places of their pictures, once.

        Args:
            data: tables, Parquet files, webdataset tars and folders, as in `read_captions`: paths, URLs, and patterns
                such as `{0000..0099}.tar`.
            side: pictures are scaled to this shorter side and cropped to a square.
            tokenizer: of the text encoder.
            folder: for the index.
            languages: codes to read; empty for all.
            temperature: of the mix of languages; see `LanguageMix`.
            weights: factors for the shares of some languages.
            accelerator: of the run. Its main process reads.
            encoding: of captions that are not UTF-8 and have no byte-order mark.
            cache: as in `prepared`.

        Raises:
            UserError: a source cannot be read, or no pictures are left.
        """
        places = places_of(data)
        made_from = {
            "data": [[place, stamp_of(place)] for place in places],
            "side": side,
            "tokenizer": fingerprint(tokenizer),
            "languages": list(languages),
            "encoding": encoding,
        }

        def write(into: Path) -> None:
            _write(places, side, tokenizer, into, languages, encoding)

        return cls(prepared(folder, made_from, write, accelerator, cache), temperature, weights, cache is not None)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws random pictures with one caption each: indices of pictures and of texts, both int64 (count,)."""
        groups = torch.from_numpy(self._groups[self.mix.draw(count, generator).numpy()])
        pictures, first, size = groups[:, 0], groups[:, 2], groups[:, 3]
        places = first + (torch.rand(count, generator=generator, dtype=torch.float64) * size).long()
        texts = [self.of_picture[p][q] for p, q in zip(pictures.tolist(), places.tolist(), strict=True)]
        return pictures, torch.tensor(texts)

    def draw_similar(self, count: int, pool: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws random pictures with one caption each, captions of similar length out of `pool` batches."""
        pictures, texts = self.draw(pool * count, generator)
        chosen = similar_lengths(self.tokens.lengths_of(texts), count, generator)
        return pictures[chosen], texts[chosen]

    def first_captions(self, language: str) -> list[int | None]:
        """The first caption of each kept picture in a language, as an index into `texts`; None if there is none."""
        first: list[int | None] = [None] * len(self)
        for picture, _, place, _ in self._groups[self._groups[:, 1] == self.languages.index(language)]:
            if self.kept[picture]:
                first[picture] = int(self.of_picture[picture][place])
        return first

    def tokenised(self, texts: Tensor, pad_token_id: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask of some texts, int64 (texts, longest)."""
        ids, mask = self.tokens.padded(texts.tolist(), pad_token_id)
        return ids.long(), mask

    def positives(self, texts: Tensor, pictures: Tensor) -> Tensor:
        """Which texts are true of which pictures: bool (texts, pictures)."""
        places: dict[int, list[int]] = {}  # the pictures of each caption
        for column, picture in enumerate(pictures.tolist()):
            for text in self.of_picture[picture].tolist():
                places.setdefault(text, []).append(column)
        true = torch.zeros(len(texts), len(pictures), dtype=torch.bool)
        for row, text in enumerate(texts.tolist()):
            true[row, places.get(text, [])] = True
        return true

    def image(self, picture: int) -> StoredImage:
        """The place of a picture."""
        found = json.loads(self._places.text(picture))
        return Located(*found) if len(found) == 3 else InParquet(*found)

    def pixels_of(self, pictures: Tensor) -> Tensor:
        """Some pictures: uint8 (pictures, 3, side, side).

        Raises:
            ImageError: one cannot be read.
            PassingImageError: one cannot be read at the moment.
        """
        least = int(DRAFT * self.side)
        decoded = [decode(self.image(picture), least, RETRIES) for picture in pictures.tolist()]
        squares = [square(image, self.side) for image in decoded]
        return torch.from_numpy(np.stack([np.asarray(each, np.uint8) for each in squares])).permute(0, 3, 1, 2)

    def leave_out(self, pictures: np.ndarray) -> None:
        """Excludes some pictures that cannot be read.

        Raises:
            UserError: no pictures are left.
        """
        self.kept[pictures] = False
        self.left_out[_UNREADABLE] = int((~self.kept).sum())
        if not self.kept.any():
            raise UserError(f"none of the {len(self)} pictures can be read; the first: {self.fault(0)}")
        self._mix_kept()

    def fault(self, picture: int) -> str:
        """The error of a picture, as one line with its name; empty if it can be read."""
        try:
            self.pixels_of(torch.tensor([picture]))
        except ImageError as error:
            return f"{self.image(picture).name}: {error}"
        return ""

    def _mix_kept(self) -> None:
        language = np.empty(len(self._groups), np.uint8)
        is_drawn = np.empty(len(self._groups), bool)
        for start in range(0, len(self._groups), _GROUPS_AT_ONCE):
            part = self._groups[start : start + _GROUPS_AT_ONCE]
            language[start : start + len(part)] = part[:, 1]
            is_drawn[start : start + len(part)] = self.kept[part[:, 0]]
        self.mix = LanguageMix(language, self.languages, self._temperature, self._weights, is_drawn)


def read_pixels(pictures: Captioned, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Loads some pictures, with zeros for unreadable ones.

    Returns:
        uint8 (pictures, 3, side, side), and bool (pictures,) for readable.

    Raises:
        PassingImageError: one cannot be read at the moment, which is no reason to exclude it.
    """
    try:
        return pictures.pixels_of(numbers), torch.ones(len(numbers), dtype=torch.bool)
    except PassingImageError:
        raise
    except ImageError:
        if len(numbers) == 1:
            return torch.zeros(1, 3, pictures.side, pictures.side, dtype=torch.uint8), torch.zeros(1, dtype=torch.bool)
    # Few are broken, so bisecting finds them fast.
    halves = [read_pixels(pictures, half) for half in numbers.tensor_split(2)]
    pixels, readable = (torch.cat(parts) for parts in zip(*halves, strict=True))
    return pixels, readable


def check_pictures(pictures: Captioned, accelerator: Accelerator, workers: int = 0) -> None:
    """Decodes every picture once, if nothing else does before the first step, and excludes the unreadable ones."""
    readable = fill_rows(
        pictures.folder / "readable.bin",
        len(pictures),
        (),
        "float16",
        lambda found: torch.where(found, 1.0, torch.nan),
        read=lambda start, stop: read_pixels(pictures, torch.arange(start, stop))[1],
        workers=workers,
        chunk=64,
        accelerator=accelerator,
        description="pictures",
        is_shared=pictures.is_shared,
    )
    leave_out_broken(pictures, readable, accelerator)


def leave_out_broken(pictures: Captioned, rows: np.ndarray, accelerator: Accelerator | None = None) -> None:
    """Excludes pictures whose computed rows are NaN because they could not be read.

    Args:
        pictures: with captions.
        rows: computed from the pictures, (pictures, ...). The first number of each row is checked.
        accelerator: of the run. Its main process reports what was left out.
    """
    first = rows.reshape(len(rows), -1)[:, 0]
    broken = np.flatnonzero(np.isnan(first))
    if not len(broken) or not isinstance(pictures, CaptionedPictures):
        return
    pictures.leave_out(broken)
    if is_main(accelerator):
        logger.warning(
            "%d of %d pictures cannot be read and are left out; the first: %s",
            len(broken), len(pictures), pictures.fault(int(broken[0])),
        )  # fmt: skip


def square(image: Image.Image, side: int) -> Image.Image:
    """The centre square of a picture, scaled to `side` pixels."""
    if image.size == (side, side):
        return image
    width, height = image.size
    least = min(image.size)
    left, top = (width - least) / 2, (height - least) / 2
    # Crops first, so that less has to be scaled.
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + least, top + least))


def _write(
    places: Sequence[str],
    side: int,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    languages: Sequence[str],
    encoding: str,
) -> None:
    left_out, codes = LeftOut(), list(languages)
    waiting: list[str] = []
    with (
        RaggedWriter(folder / "places", "uint8") as of_place,
        RaggedWriter(folder / "of_picture", "int64") as of_picture,
        RaggedWriter(folder / "texts", "uint8") as texts,
        RaggedWriter(folder / "tokens", "int32") as tokens,
        DistinctTexts(folder / "seen.sqlite") as distinct,
        (folder / "groups.bin").open("wb") as groups,
    ):

        def tokenise() -> None:
            for ids in tokenizer(waiting, verbose=False).input_ids if waiting else ():
                tokens.add(cut_to_window(ids))
            waiting.clear()

        found = (captions for place in places for captions in read_captions(place, left_out, encoding))
        for captions in tqdm(found, desc="captions", unit="picture", mininterval=5.0):
            said = {code: s for code, s in captions.said.items() if s and (not languages or code in languages)}
            if not _is_usable(captions, said, left_out):
                continue
            for code in languages:
                if code not in said:
                    left_out.add(f"no caption in {code}", captions.place)
            codes += [code for code in said if code not in codes]
            rows: list[int] = []
            for code, sentences in said.items():
                array("q", (len(of_place), codes.index(code), len(rows), len(sentences))).tofile(groups)
                for sentence in sentences:
                    row, is_new = distinct.number(sentence)
                    rows.append(row)
                    if is_new:
                        texts.add_text(sentence)
                        waiting.append(sentence)
            of_picture.add(rows)
            of_place.add_text(json.dumps(_place_of(captions.image)))
            if len(waiting) >= _TOKENISED_AT_ONCE:
                tokenise()
        tokenise()
        count = len(of_place)
    if len(left_out):
        logger.warning("captioned pictures: %s", left_out)
    if not count:
        raise UserError(f"no picture with a caption in {', '.join(places)}: {left_out}")
    meta = {"side": side, "languages": codes, "left_out": left_out.as_dict(), "count": count}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _is_usable(captions: Captions, said: dict[str, list[str]], left_out: LeftOut) -> bool:
    if captions.image is None:
        left_out.add("no image", captions.place)
    elif not said:
        left_out.add("no caption", captions.place)
    elif is_missing(captions.image):
        left_out.add("image file missing", f"{captions.place}, {captions.image.name}")
    else:
        return True
    return False


def _place_of(image: StoredImage | None) -> list[Any]:
    if isinstance(image, InParquet):
        return [image.url, image.group, image.row, image.column]
    assert isinstance(image, Located)
    return [image.url, image.size, image.offset]
