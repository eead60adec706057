"""`altdiffusion score`: how well pictures and texts fit, for whole data sets."""

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
from altdiffusion_clip.commands.options import DTYPES, device_of, dtype_of, prepare_output
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
        help="scores for whole data sets of pictures and texts",
        description="Score rows of a picture and a text, in any language of the judge. Writes shards of Parquet "
        "(row_id, cosine, clip_score, error, may_pass, language, and a column for each further judge), each whole or "
        "not there; the same command goes on where a run was stopped. A row that cannot be scored has its error, and "
        "the exit code is then 1. A fault that may pass, such as a reset or a time-out, is tried again; what it still "
        "keeps back is left to do, and the same command does it.",
        epilog="Sources: .jsonl, .csv, .tsv (also with .gz), .parquet, webdataset .tar and .tar.gz, or a folder of "
        "pictures with a .txt of the same name beside each; as a path or any URL that fsspec opens, with *, ? and "
        "{0000..0099}, or @FILE with one of them in each line.",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    add_judge_option(parser, "--model")
    parser.add_argument("--image-column", default="image", help="a path or URL, or the picture itself (default: image)")
    parser.add_argument("--text-column", default="text", help="(default: text)")
    parser.add_argument("--language-column", default="language", help="(default: language)")
    parser.add_argument("--id-column", default="id", help="(default: id; without one a row is FILE:NUMBER)")
    parser.add_argument("--image-root", default="", metavar="DIR", help="where relative paths of pictures begin")
    parser.add_argument("--shard-size", type=int, default=10_000, metavar="ROWS", help="(default: 10000)")
    parser.add_argument("--min-cosine", type=float, metavar="C", help="also write the rows that reach it, as .jsonl")
    parser.add_argument("--encoding", default="", help="of the texts (default: UTF-8, or what a byte-order mark says)")
    parser.add_argument("--exact", action="store_true", help="decode large pictures in full size; others within 1e-3")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="refuse pictures of more (default: Pillow's limit)")
    parser.add_argument("--attempts", type=int, default=5, help="to read what a passing fault keeps back (default: 5)")
    parser.add_argument("--retry-errors", action="store_true", help="score rows again that failed for good")
    parser.add_argument(
        "--workers", type=int, help="processes that decode (default: the cores but two; without a GPU 8 at most)"
    )
    parser.add_argument("--batch-size", type=int, help="pictures at a time (default: 8; on a GPU what is fastest)")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps, or several: cuda:0,cuda:1; default: a GPU if there is one"
    )
    parser.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="of the arithmetic; auto measures which is faster"
    )
    parser.add_argument(
        "--captions",
        choices=CAPTIONS,
        default="each",
        help="of rows that have a list of texts: a row for each (default), the first, the best score, or the mean",
    )
    parser.add_argument("--embeddings", action="store_true", help="also write the first judge's vectors, .safetensors")
    add_long_text_option(parser)
    add_cache_options(parser, is_kept=False)
    add_ray_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of a sentence")
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
    # What "auto" became is kept, so that a run ends in the arithmetic in which it began.
    dtype = options.dtype if options.dtype != "auto" else before.get("dtype") or _dtype(options, panel)
    # A source that cannot be reached now is as it was.
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
    """The sources that can be read, and the others with what is wrong; at least one can."""
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
        print("the same command goes on with what is still to do")


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
        raise UserError("--vectors and --cache are of this machine; leave them away with --engine ray")
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError('scoring needs pyarrow; pip install "altdiffusion-clip[score]"')


def _panel(options: argparse.Namespace, device: "torch.device") -> "Panel":
    """The judges, whose scores of a row depend on that row alone."""
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
    """The arithmetic that is fastest."""
    if options.engine == "ray":
        # What is faster on this machine says nothing of another's.
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
        each.to(device, dtype_of(dtype))
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
    del panel, devices  # the plan has its fingerprints; each actor loads its own
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
    """All that decides the scores, so that a folder is not mixed of two runs."""
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
