"""Keeps or rejects rows of data sets by their scores, with separate thresholds for languages if wanted."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from altdiffusion_clip.bulk.near_duplicates import Pictured, near_duplicates, read_duplicates, write_duplicates
from altdiffusion_clip.bulk.scored_folder import ScoredFolder
from altdiffusion_clip.bulk.shards import LOCK, planned
from altdiffusion_clip.bulk.thresholds import order_statistics, quantiles
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.files import lock_of, remove_leftovers, write_text
from altdiffusion_clip.sources.copying import copy_rows
from altdiffusion_clip.sources.names import label_of
from altdiffusion_clip.sources.places import same_place, stamp_of
from altdiffusion_clip.sources.retries import Retries
from altdiffusion_clip.sources.rows import UnfinishedError

ALL = ""
"""The group of rows of all languages."""
NOT_SCORED = "not scored yet"
_WHAT = {
    "min": "a score, as 0.3; [LANGUAGE=][JUDGE:]",
    "top": "a share or a number of rows, as 30% or 100000; [LANGUAGE=][JUDGE:]",
    "shuffled": "a share, as 99%; [LANGUAGE=]",
}
_VALUE = re.compile(r"(?:(?P<language>[^=:]+)=)?(?:(?P<judge>.+):)?(?P<value>[+-]?[\d.]+)(?P<percent>%?)")


@dataclass(frozen=True)
class Criterion:
    """What a row must reach to be kept.

    Attributes:
        kind: "min", a score; "share", to be in the best share, from 0 to 1; "count", to be among the best rows; or
            "shuffled", to be above this share of the scores of pictures with texts of other rows.
        value: the score, share or number of rows.
        column: the judge; the first if empty.
        language: of the rows that it applies to; all if empty.
    """

    kind: str
    value: float
    column: str = ""
    language: str = ""

    @classmethod
    def parse(cls, option: str, given: str) -> "Criterion":
        """Parses `[LANGUAGE=][JUDGE:]VALUE`, where a value of --top may be a share: `zh=30%`.

        Raises:
            UserError: it is not valid.

        Example:
            >>> Criterion.parse("top", "zh=siglip2:30%")
            Criterion(kind='share', value=0.3, column='siglip2', language='zh')
        """
        found = _VALUE.fullmatch(given)
        try:
            value = float(found["value"]) if found else np.nan
        except ValueError:
            value = np.nan
        is_share = bool(found and found["percent"])
        kind = option if option != "top" else "share" if is_share else "count"
        is_right = {
            "min": not is_share,
            "share": 0 < value <= 100,
            "count": value >= 1 and not value % 1,
            "shuffled": is_share and 0 < value < 100 and not (found and found["judge"]),
        }[kind]
        if found is None or np.isnan(value) or not is_right:
            raise UserError(f"--{option} {given}: give {_WHAT[option]} may stand before it")
        amount = value / 100 if is_share else value
        return cls(kind, amount, found["judge"] or "", found["language"] or "")


@dataclass(frozen=True)
class Filter:
    """What to keep.

    Attributes:
        criteria: one or more.
        by_language: shares and numbers apply to each language separately, instead of to all rows together.
        any_of_them: keep a row that reaches any criterion, instead of one that reaches all criteria of its language.
        near_duplicates: of pictures whose vectors have at least this cosine, keep the one with the best score; None to
            keep all.
    """

    criteria: tuple[Criterion, ...]
    by_language: bool = False
    any_of_them: bool = False
    near_duplicates: float | None = None


@dataclass
class Counts:
    """Counts of rows.

    Attributes:
        kept: rows.
        rejected: rows by reason, without the numbers in it.
    """

    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """All of them."""
        return self.kept + self.rejected.total()


def thresholds_of(scores: ScoredFolder, wanted: Filter) -> list[dict[str, float]]:
    """The threshold of each criterion by language; `ALL` for one that applies to all.

    For shares and numbers, it is the lowest score that is still in. Rows with equal scores are kept together.

    Raises:
        UserError: a language or a judge does not exist.
    """
    counts: Counter[str] = Counter()
    for shard in scores.shards:
        rows = scores.read(shard)
        finite = np.isfinite(rows["scores"]).all(1)
        counts.update(Counter(rows["language"][finite].tolist()))
    for criterion in wanted.criteria:
        if criterion.language and criterion.language not in counts:
            there = ", ".join(sorted(filter(None, counts))) or "no languages"
            raise UserError(f"there are no scored rows in {criterion.language}; there are {there}")
    return [_threshold(scores, criterion, wanted.by_language, counts) for criterion in wanted.criteria]


def _threshold(scores: ScoredFolder, criterion: Criterion, by_language: bool, counts: Counter[str]) -> dict[str, float]:
    column = scores.column(criterion.column)
    if criterion.kind == "min":
        return {criterion.language: criterion.value}
    own = {criterion.language: counts[criterion.language]} if criterion.language else dict(counts)
    groups = own if criterion.language or by_language else {ALL: counts.total()}

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        for language, values in scores.of_languages(column):
            yield (ALL if ALL in groups and len(groups) == 1 and not criterion.language else language), values

    if criterion.kind == "shuffled":
        return _above_shuffled(scores, criterion, groups)
    ranks = {}
    for group, count in groups.items():
        most = round(criterion.value * count) if criterion.kind == "share" else int(criterion.value)
        ranks[group] = [max(0, count - max(1, most))] if count else []
    found = order_statistics(stream, ranks)
    return {group: statistics[ranks[group][0]] for group, statistics in found.items() if ranks[group]}


def _above_shuffled(scores: ScoredFolder, criterion: Criterion, groups: Mapping[str, int]) -> dict[str, float]:
    one_for_all = list(groups) == [ALL] and not criterion.language

    def stream() -> Iterator[tuple[str, np.ndarray]]:
        for language, values in scores.shuffled():
            yield (ALL if one_for_all else language), values

    counts: Counter[str] = Counter()
    for group, values in stream():
        counts[group] += len(values)
    lacking = [group or "no language" for group in groups if not counts[group]]
    if lacking:
        raise UserError(
            f"no pairs of {', '.join(lacking)} can be shuffled; score with --embeddings, and more than one text of each"
        )
    return quantiles(stream, {group: counts[group] for group in groups}, criterion.value)


def run_filter(
    folder: Path, output: Path, wanted: Filter, retries: Retries, progress: Callable[[int], object] = lambda rows: None
) -> tuple[Counts, dict[str, str]]:
    """Writes the rows that are kept to files like their sources, and the others with their reasons.

    A source is done once its counts are written. The same call again continues with the others.

    Args:
        folder: of scores.
        output: gets `kept/`, `rejected/` (JSON lines of id, reason, language and scores; a near duplicate also has the
            id of the row it is `like`) and `counts/`.
        wanted: what to keep.
        retries: of each request.
        progress: called with the number of rows of each finished source.

    Returns:
        Counts of all rows, and the reasons of the sources that could not be read to the end.

    Raises:
        UserError: the folder has no scores, the output belongs to another filter, or another run is using it.
    """
    scores = ScoredFolder(folder)
    thresholds = thresholds_of(scores, wanted)
    plan = {"scores": scores.plan, "filter": asdict(wanted), "thresholds": thresholds}
    _check_output(output, json.loads(json.dumps(plan)))
    lock = lock_of(output / LOCK, f"another run is filtering into {output}; wait for its end, or stop it")
    try:
        remove_leftovers(output)
        duplicates = _near_duplicates(scores, wanted, thresholds, output)
        counts, unfinished = Counts(), dict[str, str]()
        for place, label in label_of(list(scores.plan["sources"])).items():
            name = label.strip("/").replace("://", "/")
            done = output / "counts" / f"{name}.json"
            if not done.is_file():
                try:
                    decisions = _decisions(scores, place, wanted, thresholds, duplicates)
                    _filter_source(scores, place, name, output, decisions, retries, done)
                except (UserError, UnfinishedError) as error:
                    unfinished[place] = str(error)
                    continue
            of_source = json.loads(done.read_text(encoding="utf-8"))
            counts.kept += of_source["kept"]
            counts.rejected.update(of_source["rejected"])
            progress(of_source["kept"] + sum(of_source["rejected"].values()))
    finally:
        lock.release()
    return counts, unfinished


def _check_output(output: Path, plan: dict[str, Any]) -> None:
    before = planned(output)
    if before is not None and before != plan:
        what = ", ".join(key for key in plan if before.get(key) != plan[key])
        raise UserError(f"{output} holds what another filter kept ({what} differ); choose another --output folder")
    if before is None:
        try:
            write_text(output / "_plan.json", json.dumps(plan, ensure_ascii=False, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"cannot write to {output}: {error.strerror or error}") from error


def _filter_source(
    scores: ScoredFolder,
    place: str,
    name: str,
    output: Path,
    decisions: Iterator[tuple[str, dict[str, Any]]],
    retries: Retries,
    done: Path,
) -> None:
    if stamp_of(place, retries) != scores.plan["sources"][place]:
        raise UserError(f"{place} has changed since it was scored; score it again")
    source = scores.source(place, name)
    counts = Counts()
    rejected = output / "rejected" / f"{name}.jsonl"
    rejected.parent.mkdir(parents=True, exist_ok=True)
    partial = rejected.with_name(f".{rejected.name}.partial")
    with partial.open("w", encoding="utf-8") as file:

        def keep() -> bool:
            reason, row = next(decisions, (NOT_SCORED, {}))
            if not reason:
                counts.kept += 1
                return True
            kind = reason.partition(" (")[0]
            counts.rejected[kind] += 1
            file.write(json.dumps({**row, "reason": reason}, ensure_ascii=False) + "\n")
            return False

        copy_rows(source, keep, output / "kept", retries)
    partial.replace(rejected)
    write_text(done, json.dumps({"kept": counts.kept, "rejected": counts.rejected}, ensure_ascii=False))


def _near_duplicates(
    scores: ScoredFolder, wanted: Filter, thresholds: Sequence[dict[str, float]], output: Path
) -> dict[str, tuple[str, float]]:
    """The otherwise kept rows whose picture is a near duplicate of a better one's, found once and then stored."""
    if wanted.near_duplicates is None:
        return {}
    path = output / "near-duplicates.parquet"
    if not path.is_file():
        write_duplicates(path, near_duplicates(_pictured(scores, wanted, thresholds), wanted.near_duplicates))
    return read_duplicates(path)


def _pictured(scores: ScoredFolder, wanted: Filter, thresholds: Sequence[dict[str, float]]) -> Iterator[Pictured]:
    for shard in scores.shards:
        rows = scores.read(shard)
        reasons = _reasons(scores, rows, wanted, thresholds)
        kept = {
            row: score
            for row, score, reason in zip(rows["row_id"], rows["scores"][:, 0].tolist(), reasons, strict=True)
            if not reason
        }
        if not kept:
            continue
        embeddings = scores.vectors(shard)
        names = {
            row: embeddings.images[image]
            for row, (image, _) in zip(embeddings.rows, embeddings.pairs, strict=True)
            if row in kept
        }
        vectors = dict(zip(embeddings.images, embeddings.img_embedding, strict=True))
        values = np.array([kept[row] for row in names])
        yield Pictured(list(names), values, list(names.values()), vectors)


def _decisions(
    scores: ScoredFolder,
    place: str,
    wanted: Filter,
    thresholds: Sequence[dict[str, float]],
    duplicates: Mapping[str, tuple[str, float]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each row of a source, in order: the reason for rejecting it (empty if kept), and its record."""
    parts = []
    for shard in scores.shards:
        first = 0
        for span in shard.spans:
            if span.source == same_place(place):
                parts.append((span.start, span.count, shard, first))
            first += span.count
    row = 0
    for start, count, shard, first in sorted(parts, key=lambda part: part[0]):
        for _ in range(start - row):
            yield NOT_SCORED, {}
        rows = {key: values[first : first + count] for key, values in scores.read(shard).items()}
        reasons = _reasons(scores, rows, wanted, thresholds)
        for place_in_part, reason in enumerate(reasons):
            values = dict(zip(scores.columns, rows["scores"][place_in_part].tolist(), strict=True))
            said = {"id": rows["row_id"][place_in_part], "language": rows["language"][place_in_part]}
            known = {name: round(value, 6) for name, value in values.items() if np.isfinite(value)}
            if not reason and said["id"] in duplicates:
                other, cosine = duplicates[said["id"]]
                reason, known["like"] = f"near duplicate (cosine {cosine:.4f})", other
            yield reason, {**said, **known}
        row = start + count


def _reasons(
    scores: ScoredFolder, rows: dict[str, np.ndarray], wanted: Filter, thresholds: Sequence[dict[str, float]]
) -> list[str]:
    count = len(rows["row_id"])
    reached = np.zeros((len(thresholds), count), bool)
    is_of = np.zeros((len(thresholds), count), bool)  # whether the criterion applies to the row's language
    limits = np.full((len(thresholds), count), np.nan)
    for place, (criterion, of_group) in enumerate(zip(wanted.criteria, thresholds, strict=True)):
        values = rows["scores"][:, scores.column(criterion.column)]
        for group, limit in of_group.items():
            mine = np.full(count, True) if group == ALL and not criterion.language else rows["language"] == group
            if group == ALL and wanted.by_language and criterion.kind != "min":
                mine = rows["language"] == ALL
            is_of[place, mine], limits[place, mine] = True, limit
            reached[place, mine] = values[mine] >= np.float32(limit)
    reasons = []
    for row in range(count):
        mine = np.flatnonzero(is_of[:, row])
        missed = [place for place in mine if not reached[place, row]]
        if rows["error"][row]:
            reasons.append(f"no score ({rows['error'][row]})")
        elif not len(mine) and thresholds:
            reasons.append(f"no criterion for its language ({rows['language'][row] or 'none'})")
        elif not missed or (wanted.any_of_them and len(missed) < len(mine)):
            reasons.append("")
        else:
            first = int(missed[0])
            name = scores.columns[scores.column(wanted.criteria[first].column)]
            value = rows["scores"][row, scores.column(wanted.criteria[first].column)]
            reasons.append(f"{name} too low ({value:.4f}, where {limits[first, row]:.4f} is asked for)")
    return reasons
