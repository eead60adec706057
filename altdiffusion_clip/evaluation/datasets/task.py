"""A retrieval task: images, and the texts of each language that belong to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.pictures import StoredImage

SHOWN = 5


@dataclass(frozen=True)
class Caption:
    """A text and the ids of the images that it belongs to."""

    language: str
    text: str
    images: Sequence[str]


@dataclass(frozen=True)
class LanguageTask:
    """The texts of one language.

    Attributes:
        texts: in the order of the data set.
        images: indices into the task's `images` of this language's candidates, int64.
        pairs: int64 (pairs, 2), an index into `texts` and one into this language's `images`.
    """

    texts: list[str]
    images: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True)
class RetrievalTask:
    """Images and texts of a data set.

    Attributes:
        name: of the data set, with its split.
        ids: of the images in the data set.
        images: in the order of the data set.
        languages: the texts by language code.
        missing: names of missing images that were left out.
    """

    name: str
    ids: list[str]
    images: list[StoredImage]
    languages: dict[str, LanguageTask]
    missing: list[str]


def new_task(
    name: str,
    images: Iterable[tuple[str, StoredImage]],
    captions: Iterable[Caption],
    languages: Sequence[str] = (),
    allow_missing: bool = False,
    all_are_candidates: bool = True,
) -> RetrievalTask:
    """Assembles a task and checks it.

    Args:
        name: of the data set.
        images: ids and pictures.
        captions: of all languages.
        languages: to keep; empty for all.
        allow_missing: leave out missing images, and texts without any other image.
        all_are_candidates: search for texts among all images, not only among those with a text in the language.

    Raises:
        UserError: an id occurs twice, a caption has no image or an unknown one, an image is missing, or a language has
            no captions.
    """
    places: dict[str, int] = {}
    stored: list[StoredImage] = []
    for key, image in images:
        if key in places:
            raise UserError(f"{name}: the image id {key} is there twice; keep one of the two")
        places[key] = len(stored)
        stored.append(image)
    missing = [place for place, image in enumerate(stored) if not image.is_there()]
    if missing and not allow_missing:
        names = ", ".join(stored[place].name for place in missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UserError(
            f"{name}: {len(missing)} of {len(stored)} images are not there: {names}{more}; "
            "get them, or skip them with --allow-missing"
        )
    gone = set(missing)
    texts: dict[str, list[str]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    seen: set[str] = set()
    for caption in captions:
        seen.add(caption.language)
        if languages and caption.language not in languages:
            continue
        if not caption.images:
            raise UserError(f"{name}: a caption has no image: {caption.text!r}; leave it out, or say which it is of")
        unknown = [key for key in caption.images if key not in places]
        if unknown:
            raise UserError(f"{name}: a caption is of image {unknown[0]}, which is not there: {caption.text!r}")
        of = [places[key] for key in caption.images if places[key] not in gone]
        if not of or not caption.text.strip():
            continue
        pairs.setdefault(caption.language, []).extend(
            (len(texts.setdefault(caption.language, [])), place) for place in dict.fromkeys(of)
        )
        texts[caption.language].append(caption.text)
    for code in languages or ("?",):
        if not texts.get(code) and (languages or not texts):
            which = f"in {code}" if languages else "at all"
            raise UserError(f"{name}: there are no captions {which}; it has {', '.join(sorted(seen)) or 'none'}")
    candidates = np.array([place for place in range(len(stored)) if place not in gone])
    tasks = {}
    for code in languages or texts:
        table = np.array(pairs[code])
        kept = candidates if all_are_candidates else np.unique(table[:, 1])
        table[:, 1] = np.searchsorted(kept, table[:, 1])
        tasks[code] = LanguageTask(texts[code], kept, table)
    return RetrievalTask(name, list(places), stored, tasks, [stored[place].name for place in missing])
