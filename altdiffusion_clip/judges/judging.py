"""Judges rows of pictures and texts, and ranks pictures for a text."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.images import BrokenImage, ImageSource, name_of
from altdiffusion_clip.judges.base import Function, Judge, PairJudge, is_dual, is_pair
from altdiffusion_clip.judges.embedding_files import Embeddings
from altdiffusion_clip.judges.encoding import Bench, Seen, look_at
from altdiffusion_clip.judges.ensembles import Ensemble, Panel
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.pictures import Picture, Workers
from altdiffusion_clip.scores import NOT_A_NUMBER, Ranking, in_order
from altdiffusion_clip.scoring import as_list
from altdiffusion_clip.sources.pictures import Located
from altdiffusion_clip.sources.row import Row

PAIRED_AT_ONCE = 64
"""Pictures in memory while judges score pairs."""

JudgeLike = Judge | Ensemble | Function | str
"""A judge, its name, or a function of texts and pictures."""


@dataclass(frozen=True)
class Judged:
    """The judges' results for a row.

    Attributes:
        scores: one for each column of the panel; empty if it failed.
        error: one line; empty if it has scores.
        may_pass: the error may be temporary.
    """

    scores: tuple[float, ...] = ()
    error: str = ""
    may_pass: bool = False


def judge_rows(
    rows: Iterable[Row], benches: Sequence[Bench], workers: Workers, keep: Callable[[Embeddings], object] | None = None
) -> tuple[list[Row], list[Judged]]:
    """Judges rows as they come, in order.

    A picture or text of several rows is encoded once. Pictures are the same if their bytes are. A row has scores only
    if every judge has a score for it.

    Args:
        rows: any number; their pictures are freed once they are decoded.
        benches: the same panel, on each device.
        workers: that prepare pictures for it.
        keep: gets the first judge's vectors, with pictures named by `name_of_picture`.

    Returns:
        The rows without their pictures, and their scores.
    """
    read: list[Row] = []
    picture_of: list[int | None] = []
    known: dict[Located, int] = {}
    said: list[str] = []

    def pictures() -> Iterator[Picture]:
        for row in rows:
            read.append(without_bytes(row))
            if row.error or row.image is None:
                picture_of.append(None)
            elif isinstance(row.image, Located) and row.image in known:
                picture_of.append(known[row.image])
            else:
                picture_of.append(len(said))
                # Judges that score pairs need the picture with each of its texts.
                if isinstance(row.image, Located) and benches[0].is_dual:
                    known[row.image] = len(said)
                said.append(row.text)
                yield row.image

    seen = look_at(pictures(), benches, workers, said.__getitem__)
    good = [
        (place, picture)
        for place, picture in enumerate(picture_of)
        if picture is not None and picture not in seen.wrong
    ]
    scores = _scores(benches[0], seen, [(read[place].text, picture) for place, picture in good])
    of_place = dict(zip((place for place, _ in good), scores.T.tolist(), strict=True))
    if keep is not None:
        encoder = benches[0].encoders[0]
        found = {name_of_picture(read[place]): seen.vectors[0][seen.keys[picture]] for place, picture in good}
        texts = list(dict.fromkeys(read[place].text for place, _ in good))
        images = torch.stack(list(found.values())) if found else torch.empty(0, encoder.judge.dim)
        own = encoder.judge.logit_scale, encoder.fingerprint
        names, said_at = ({key: at for at, key in enumerate(each)} for each in (found, texts))
        pairs = [[names[name_of_picture(read[place])], said_at[read[place].text]] for place, _ in good]
        of_pairs = np.array(pairs, np.int32).reshape(-1, 2)
        languages, rows_of = [read[place].language for place, _ in good], [read[place].row_id for place, _ in good]
        said_vectors = encoder.texts(texts).numpy()
        keep(Embeddings(list(found), images.numpy(), texts, said_vectors, *own, of_pairs, languages, rows_of))
    judged = []
    for place, picture in enumerate(picture_of):
        if picture is None:
            judged.append(Judged(error=read[place].error or "no picture"))
        elif picture in seen.wrong:
            wrong = seen.wrong[picture]
            judged.append(Judged(error=wrong.error, may_pass=wrong.may_pass))
        elif all(map(math.isfinite, of_place[place])):
            judged.append(Judged(tuple(of_place[place])))
        else:
            judged.append(Judged(error=NOT_A_NUMBER))
    return read, judged


def _scores(bench: Bench, seen: Seen, pairs: Sequence[tuple[str, int]]) -> Tensor:
    """The scores of texts with pictures by index, float32 (columns, pairs)."""
    scores = torch.empty(len(bench.panel.members), len(pairs))
    texts = [text for text, _ in pairs]
    for judge, encoder in bench.encoders.items():
        if pairs:
            vectors = torch.stack([seen.vectors[judge][seen.keys[picture]] for _, picture in pairs])
            scores[judge] = encoder.cosines(texts, vectors)
    for judge, of_picture in seen.pairs.items():
        scores[judge] = torch.tensor([of_picture[picture] for _, picture in pairs])
    return bench.panel.combine(scores)


def score_drawn(texts: str | Sequence[str], images: Sequence[Image.Image], bench: Bench) -> Tensor:
    """Scores a few pictures in memory.

    Args:
        texts: one per picture, or one for all, in any language that the judges read.
        images: RGB.
        bench: of the judges.

    Returns:
        float32 (members, pictures), one row per member of the panel. `Panel.combine` turns them into columns.
    """
    said = [texts] * len(images) if isinstance(texts, str) else list(texts)
    prepared = bench.preparation(exact=True)(images)
    inputs = [each.inputs for each in prepared]
    scores = torch.empty(len(bench.panel.members), len(images))
    for (place, encoder), begun in zip(bench.encoders.items(), bench.begin_vectors(inputs), strict=True):
        scores[place] = encoder.cosines(said, begun())
    for place, given in bench.pair_scores(said, inputs).items():
        scores[place] = given
    return scores


def name_of_picture(row: Row) -> str:
    """The name of a row's picture in a file of vectors: its place, or the row's id if the row contains it."""
    return row.image.url if isinstance(row.image, Located) else row.row_id


def without_bytes(row: Row) -> Row:
    """The row without the picture it contains."""
    return replace(row, image=None) if isinstance(row.image, bytes) else row


@dataclass(frozen=True)
class EmbeddedPictures:
    """Vectors of pictures.

    Attributes:
        vectors: float32 (pictures, dim); NaN where a picture could not be read.
        broken: index and reason of each of these.
    """

    vectors: np.ndarray
    broken: list[tuple[int, str]]


def embed_pictures(bench: Bench, pictures: Sequence[Picture], count: int = 0) -> EmbeddedPictures:
    """Unit vectors of pictures, decoded at full size.

    Args:
        bench: of one judge that has vectors.
        pictures: encoded or decoded, in memory or to be read.
        count: decoding processes.
    """
    from tqdm import tqdm

    encoder = bench.encoder
    # No bar for less than a second of work, such as when everything is cached.
    bar = tqdm(total=len(pictures), desc=f"pictures, {encoder.judge.name}", delay=1.0, leave=False)
    with bar, Workers(bench.preparation(exact=True), count) as workers:
        seen = look_at(pictures, [bench], workers, progress=bar.update)
    vectors = np.full((len(pictures), encoder.judge.dim), np.nan, np.float32)
    for place, key in seen.keys.items():
        vectors[place] = seen.vectors[0][key].numpy()
    return EmbeddedPictures(vectors, [(place, wrong.error) for place, wrong in sorted(seen.wrong.items())])


def judge_all(texts: Sequence[str], pictures: Sequence[Picture], bench: Bench) -> tuple[Tensor, list[tuple[int, str]]]:
    """Judges every text with every picture, at full size.

    Args:
        texts: any number; equal texts are judged once.
        pictures: encoded or decoded, in memory or to be read.
        bench: of the judges.

    Returns:
        float32 (columns, texts, pictures), NaN where a picture could not be read; and the index and reason of these.
    """
    panel, distinct = bench.panel, list(dict.fromkeys(texts))
    scores = torch.full((len(panel.members), len(distinct), len(pictures)), torch.nan)
    broken: dict[int, str] = {}
    for place, judge in enumerate(panel.members):
        if is_dual(judge):
            own = Bench.of(judge, bench.batch_size)
            own.encoders[0] = bench.encoders[place]
            embedded = embed_pictures(own, pictures)
            scores[place] = own.encoder.every_cosine(distinct, torch.from_numpy(embedded.vectors))
            broken |= dict(embedded.broken)
        elif is_pair(judge):
            broken |= _pair_scores(judge, distinct, pictures, scores[place])
    combined = torch.stack([panel.combine(scores[:, row]) for row in range(len(distinct))], 1)
    return combined[:, [distinct.index(text) for text in texts]], sorted(broken.items())


def _pair_scores(judge: PairJudge, texts: Sequence[str], pictures: Sequence[Picture], scores: Tensor) -> dict[int, str]:
    """Fills in scores (texts, pictures) in blocks of pictures. Returns the errors of pictures."""
    broken: dict[int, str] = {}
    bench = Bench(Panel([judge]))
    with Workers(bench.preparation(exact=True)) as workers:
        for first in range(0, len(pictures), PAIRED_AT_ONCE):
            prepared = list(workers.prepare(pictures[first : first + PAIRED_AT_ONCE]))
            broken |= {first + place: each.error for place, each in prepared if each.error}
            good = [(first + place, each.inputs[0]) for place, each in prepared if not each.error]
            for row, text in enumerate(texts):
                given = judge.pair_scores([text] * len(good), [inputs for _, inputs in good])
                scores[row, [place for place, _ in good]] = given.cpu().float()
    return broken


def rank(
    prompt: str,
    images: ImageSource | Iterable[ImageSource],
    judge: JudgeLike | Panel | Sequence[JudgeLike] = DEFAULT_MODEL,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 32,
    exact: bool = True,
    count: int = 0,
) -> Ranking:
    """Orders pictures by how well they fit a prompt, best first. Equal scores keep their order.

    Args:
        prompt: in any language that the judge reads.
        images: PIL pictures, paths, tensors (3, height, width) or arrays (height, width, 3), or a mix of these.
        judge: a judge, its name (see `load_judge`), a function of texts and pictures, or several of these. The first
            decides the order. The others' scores are in `scores` of each picture.
        device: for judges given by name.
        dtype: for judges given by name.
        batch_size: pictures at a time.
        exact: decode pictures at full size. Otherwise JPEGs are decoded no larger than the judges need, which changes
            cosines by at most 1e-3.
        count: decoding processes; 0 for two threads.

    Raises:
        UserError: the prompt is empty, or a judge cannot be loaded.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import concepts, find_ground
        >>> from altdiffusion_clip.emoji.renders import Placement, render
        >>> pictures = [render(find_ground("blue"), (thing, Placement())) for thing in concepts()[:8]]
        >>> rank("一只猫", pictures)[0].index
        0
        >>> def brightness(texts, pictures):
        ...     return [picture.convert("L").resize((1, 1)).getpixel((0, 0)) for picture in pictures]
        >>> rank("一只猫", pictures, judge=brightness)[0].measure
        'score'
    """
    if not prompt.strip():
        raise UserError("the prompt is empty; say what the pictures should show")
    panel = judge if isinstance(judge, Panel) else load_panel(judge, device, dtype)
    sources = as_list(images)
    names = [name_of(source, place) for place, source in enumerate(sources)]
    bench = Bench(panel, batch_size)
    with Workers(bench.preparation(exact), count) as workers:
        return ranking(prompt, sources, names, [bench], workers)


def ranking(
    prompt: str, pictures: Sequence[Picture], names: Sequence[str], benches: Sequence[Bench], workers: Workers
) -> Ranking:
    """Orders pictures by the first column of a panel.

    Args:
        prompt: what they should show.
        pictures: encoded or decoded, in memory or to be read.
        names: of the pictures.
        benches: the panel, on each device.
        workers: that prepare pictures for it.
    """
    seen = look_at(pictures, benches, workers, lambda place: prompt)
    panel = benches[0].panel
    scores = torch.full((len(panel.columns), len(pictures)), torch.nan)
    places = sorted(seen.keys)
    scores[:, places] = _scores(benches[0], seen, [(prompt, place) for place in places])
    broken = {place: BrokenImage(place, names[place], wrong.error) for place, wrong in seen.wrong.items()}
    return in_order(scores, panel.columns, names, broken)
