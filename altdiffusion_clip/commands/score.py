"""`altdiffusion score`: scores how well pictures and texts fit, for whole data sets."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    add_long_text_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import DTYPES, device_of, dtype_on, prepare_output
from altdiffusion_clip.commands.ray_options import add_ray_options, check_ray_options, cluster_of
from altdiffusion_clip.errors import UserError

CAPTIONS = ("each", "first", "best", "mean")

if TYPE_CHECKING:
    import torch

    from altdiffusion_clip.bulk.scoring import Job, Report
    from altdiffusion_clip.bulk.shards import ShardFolder
    from altdiffusion_clip.judges.ensembles import Panel
    from altdiffusion_clip.sources.retries import Retries
    from altdiffusion_clip.sources.rows import Source


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "score",
        help="Score data sets of pictures and texts.",
        description="Score each row of a data set: how well its picture matches its text, in any language of the "
        "judge. The scores are written as Parquet shards with the columns row_id, cosine, clip_score, error, "
        "may_pass and language, and a column for each further judge. A shard is written whole or not at all, and "
        "the same command continues after a stop.\n\n"
        "A fault that may pass, such as a time-out, is tried again, and rows that it affects stay to be done. A row "
        "that fails for good has its error in the shard. If any row has no score, the exit code is 1.",
        examples=[
            "altdiffusion score pairs.jsonl --output scores/",
            "altdiffusion score 's3://bucket/{0000..0099}.tar' --judge BAAI/AltCLIP-m9 --output scores/",
        ],
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="A path or URL of .jsonl, .csv, .tsv (also .gz), .parquet, or webdataset .tar files, or a folder of "
        "pictures with a .txt file beside each. May contain *, ? and {0000..0099}. @FILE reads sources from a file.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="Folder for the scores.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object at the end, not a sentence.")
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--image-column", default="image", metavar="NAME", help="Picture, as path, URL or bytes (default: image)."
    )
    rows.add_argument("--text-column", default="text", metavar="NAME", help="Text, or a list (default: text).")
    rows.add_argument("--language-column", default="language", metavar="NAME", help="Language (default: language).")
    rows.add_argument(
        "--id-column", default="id", metavar="NAME", help="Id. Without one, a row is FILE:NUMBER (default: id)."
    )
    rows.add_argument("--image-root", default="", metavar="DIR", help="Folder that relative paths start from.")
    rows.add_argument(
        "--captions",
        choices=CAPTIONS,
        default="each",
        help="If a row has several texts: score each, the first, or report the best or mean score (default: each).",
    )
    rows.add_argument(
        "--encoding", default="", help="Encoding of the texts (default: UTF-8, or what the byte-order mark says)."
    )
    rows.add_argument(
        "--max-pixels", type=int, metavar="N", help="Refuse pictures with more pixels (default: Pillow's limit)."
    )
    rows.add_argument("--attempts", type=int, default=5, metavar="N", help="Tries to read a source (default: 5).")
    rows.add_argument("--retry-errors", action="store_true", help="Score rows again that failed for good.")
    judging = parser.add_argument_group("judge and output")
    add_judge_option(judging, "--model")
    add_long_text_option(judging)
    judging.add_argument("--min-cosine", type=float, metavar="C", help="Also write rows with at least this cosine.")
    judging.add_argument("--embeddings", action="store_true", help="Also write the first judge's vectors.")
    judging.add_argument("--shard-size", type=int, default=10_000, metavar="N", help="Rows per shard (default: 10000).")
    speed = parser.add_argument_group("speed and hardware")
    speed.add_argument(
        "--device", default="auto", help="cpu, cuda, mps, or several: cuda:0,cuda:1 (default: a GPU if there is one)."
    )
    speed.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="Precision; auto measures which is fastest."
    )
    speed.add_argument(
        "--batch-size", type=int, metavar="N", help="Pictures at a time (default: 8; on a GPU the fastest)."
    )
    speed.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="Decoding processes (default: all cores but two; without a GPU up to 8).",
    )
    speed.add_argument(
        "--exact", action="store_true", help="Decode large JPEGs in full. Without it scores differ by about 0.001."
    )
    add_cache_options(speed, is_kept=False)
    add_ray_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Scores. Returns whether every row has a score."""
    _check(options)
    from tqdm import tqdm

    from altdiffusion_clip.bulk.scoring import Job
    from altdiffusion_clip.bulk.shards import ShardFolder, planned
    from altdiffusion_clip.sources.places import same_place, stamp_of
    from altdiffusion_clip.sources.retries import Retries

    prepare_output()
    retries = Retries(options.attempts)
    sources, refused = _sources(options, retries)
    devices = [device_of(name) for name in options.device.split(",")]
    panel = _panel(options, devices[0])
    before = planned(options.output) or {}
    # What "auto" resolved to is recorded, so that a run ends with the dtype it began with.
    dtype = options.dtype if options.dtype != "auto" else before.get("dtype") or _dtype(options, panel)
    # A source that cannot be reached now counts as unchanged.
    known = before.get("sources", {})
    stamps = {same_place(place): known[same_place(place)] for place, _ in refused if same_place(place) in known}
    stamps |= {same_place(source.place): stamp_of(source.place, retries) for source in sources}
    folder = ShardFolder(options.output, _plan(options, panel, dtype), stamps)
    more = (options.min_cosine, retries, options.retry_errors, options.captions, options.embeddings)
    job = Job(sources, options.shard_size, *more)
    score = _on_ray if options.engine == "ray" else _here
    with folder.locked(), tqdm(desc="scoring", unit="row", unit_scale=True, file=sys.stderr) as bar:
        try:
            report = score(options, job, folder, panel, dtype, devices, bar.update)
        except OSError as error:
            raise UserError(f"cannot write to {options.output}: {error.strerror or error}") from error
    places = tuple(place for place, _ in refused)
    report = replace(report, unfinished=(*refused, *report.unfinished), uncounted=(*places, *report.uncounted))
    _print(options, report, dtype)
    return report.is_complete


def _sources(
    options: argparse.Namespace, retries: "Retries"
) -> "tuple[tuple[Source, ...], tuple[tuple[str, str], ...]]":
    """The sources that can be read, and the others with the reason. At least one can be read."""
    from altdiffusion_clip.sources.names import check_protocols, expand, label_of
    from altdiffusion_clip.sources.row import Columns
    from altdiffusion_clip.sources.rows import Source, check_source

    columns = Columns(options.image_column, options.text_column, options.language_column, options.id_column)
    places = expand(options.sources)
    check_protocols(places)
    labels = label_of(places)
    good, refused = [], []
    for place in places:
        source = Source(place, columns, options.image_root, labels[place], options.encoding)
        try:
            kind = check_source(source, retries)
        except UserError as error:
            refused.append((place, str(error)))
        else:
            good.append(source)
            if kind == "folder":
                _say_what_is_passed_over(place, retries)
    if not good:
        raise UserError(refused[0][1])
    for _, reason in refused:
        print(reason, file=sys.stderr)
    return tuple(good), tuple(refused)


def _say_what_is_passed_over(place: str, retries: "Retries") -> None:
    from altdiffusion_clip.sources.folders import passed_over

    if others := passed_over(place, retries):
        listed = ", ".join(f"{ending} {count}" for ending, count in others.items())
        print(f"{place}: {sum(others.values())} files are no pictures and are passed over ({listed})", file=sys.stderr)


def _print(options: argparse.Namespace, report: "Report", dtype: str) -> None:
    if options.json:
        kept = {} if options.min_cosine is None else {"kept": report.kept}
        unfinished = [{"source": source, "reason": reason} for source, reason in report.unfinished]
        counts = {"rows": report.rows, "scored": report.scored, "failed": report.failed, "to_do": report.to_do}
        more = {"unfinished": unfinished, "uncounted": report.uncounted, "dtype": dtype}
        line = {"folder": str(options.output), **counts, **kept, **more}
        print(json.dumps(line, ensure_ascii=False))
        return
    parts = [f"{report.scored} scored", f"{report.failed} without a score"]
    parts += [f"{report.to_do} still to do"] if report.to_do else []
    parts += [f"{report.kept} at {options.min_cosine} or above"] if options.min_cosine is not None else []
    print(f"{options.output}: {report.rows} rows, {', '.join(parts)}")
    for source in report.uncounted:
        print(f"{source}: its other rows could not be counted")
    for _, reason in report.unfinished:
        print(f"unfinished: {reason}")
    if report.to_do or report.unfinished:
        print("run the same command again to continue")


def _check(options: argparse.Namespace) -> None:
    for name in ("shard_size", "batch_size", "max_pixels", "attempts"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    if options.encoding:
        from altdiffusion_clip.sources.texts import check_encoding

        check_encoding(options.encoding)
    if options.workers is not None and options.workers < 0:
        raise UserError("--workers must be 0 or more")
    if options.min_cosine is not None and not -1 <= options.min_cosine <= 1:
        raise UserError("--min-cosine must be between -1 and 1")
    check_ray_options(options)
    if options.engine == "ray" and (options.vectors or options.cache):
        raise UserError("--vectors and --cache are files on this machine; omit them with --engine ray")
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError('scoring needs pyarrow; pip install "altdiffusion-clip[score]"')


def _panel(options: argparse.Namespace, device: "torch.device") -> "Panel":
    """The judges. Each of them must score a row independently of other rows."""
    from altdiffusion_clip.judges.base import is_dual
    from altdiffusion_clip.judges.names import load_panel

    panel = load_panel(judges_of(options), device, long_text=options.long_text)
    panel.check_by_row()
    if options.embeddings and not is_dual(panel.members[0]):
        raise UserError(f"--embeddings are of the first judge, and {panel.members[0].name} gives none")
    if options.min_cosine is not None and panel.columns[0].measure != "cosine":
        raise UserError(f"--min-cosine is of the first judge, and {panel.columns[0].name} gives no cosines")
    return panel


def _dtype(options: argparse.Namespace, panel: "Panel") -> str:
    """The fastest dtype."""
    if options.engine == "ray":
        # What is fastest here may not be on another machine.
        return "float16" if cluster_of(options).gpus else "float32"
    from altdiffusion_clip.judges.encoding import fastest_dtype

    return str(fastest_dtype(panel.members[0])).removeprefix("torch.")


def _here(
    options: argparse.Namespace,
    job: "Job",
    folder: "ShardFolder",
    panel: "Panel",
    dtype: str,
    devices: "list[torch.device]",
    progress: Callable[[int], object],
) -> "Report":
    """Scores on this machine."""
    from altdiffusion_clip.bulk.scoring import score_sources
    from altdiffusion_clip.judges.encoding import fastest_batch_size
    from altdiffusion_clip.judges.pictures import Workers, default_workers

    panels = [panel, *(_panel(options, device) for device in devices[1:])]
    for each, device in zip(panels, devices, strict=True):
        each.to(device, dtype_on(device, dtype))
    size = options.batch_size or fastest_batch_size(panel.members[0])
    benches = [bench_for(options, each, size) for each in panels]
    count = default_workers(devices[0].type != "cpu") if options.workers is None else options.workers
    with Workers(benches[0].preparation(options.exact, options.max_pixels, job.retries), count) as workers:
        return score_sources(job, folder, benches, workers, progress)


def _on_ray(
    options: argparse.Namespace,
    job: "Job",
    folder: "ShardFolder",
    panel: "Panel",
    dtype: str,
    devices: "list[torch.device]",
    progress: Callable[[int], object],
) -> "Report":
    """Scores on a Ray cluster."""
    del panel, devices  # only for the fingerprints in the plan; each actor loads its own
    from altdiffusion_clip.bulk.ray_engine import Model, connect, score_on_ray
    from altdiffusion_clip.judges.pictures import default_workers

    cluster = cluster_of(options)
    count = default_workers(cluster.gpus > 0, int(cluster.cpus)) if options.workers is None else options.workers
    model = Model(
        tuple(judges_of(options)),
        dtype,
        options.batch_size,
        options.exact,
        options.max_pixels,
        count,
        options.long_text,
    )
    connect(cluster)
    return score_on_ray(job, folder, model, cluster, progress)


def _plan(options: argparse.Namespace, panel: "Panel", dtype: str) -> dict[str, object]:
    """Everything that decides the scores, so that a folder never mixes two runs."""
    return {
        "columns": [options.image_column, options.text_column, options.language_column, options.id_column],
        "image_root": options.image_root,
        "encoding": options.encoding,
        "judges": panel.describe(),
        "exact": options.exact,
        "max_pixels": options.max_pixels,
        "dtype": dtype,
        "min_cosine": options.min_cosine,
        "captions": options.captions,
        "embeddings": options.embeddings,
    }
