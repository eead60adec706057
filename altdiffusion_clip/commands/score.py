"""`altdiffusion score`: how well pictures and texts fit, for whole data sets."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.commands.options import DTYPES, device_of, dtype_of, prepare_output
from altdiffusion_clip.commands.ray_options import add_ray_options, check_ray_options, cluster_of
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    import torch

    from altdiffusion_clip.bulk.scoring import Job, Summary
    from altdiffusion_clip.bulk.shards import ShardFolder
    from altdiffusion_clip.scoring import AltCLIPScorer


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "score",
        help="scores for whole data sets of pictures and texts",
        description="Score rows of a picture and a text, in any language of the model. Writes shards of Parquet "
        "(row_id, cosine, clip_score, error), each whole or not there; the same command goes on where a run was "
        "stopped. A row that cannot be scored has its error, and the exit code is then 1.",
        epilog="Sources: .jsonl, .csv, .tsv, .parquet, webdataset .tar, or a folder of pictures with a .txt of the "
        "same name beside each; as a path or any URL that fsspec opens.",
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default=EMOJI_M9, help="an AltCLIP: a folder, file or hub id (default: %(default)s)")
    parser.add_argument("--image-column", default="image", help="a path or URL, or the picture itself (default: image)")
    parser.add_argument("--text-column", default="text", help="(default: text)")
    parser.add_argument("--language-column", default="language", help="(default: language)")
    parser.add_argument("--id-column", default="id", help="(default: id; without one a row is FILE:NUMBER)")
    parser.add_argument("--image-root", default="", metavar="DIR", help="where relative paths of pictures begin")
    parser.add_argument("--shard-size", type=int, default=10_000, metavar="ROWS", help="(default: 10000)")
    parser.add_argument("--min-cosine", type=float, metavar="C", help="also write the rows that reach it, as .jsonl")
    parser.add_argument("--exact", action="store_true", help="decode JPEGs in full size; others within 1e-3")
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
    add_ray_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of a sentence")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Scores. Returns whether every row has a score."""
    _check(options)
    from tqdm import tqdm

    from altdiffusion_clip.bulk.rows import Columns, check_source
    from altdiffusion_clip.bulk.scoring import Job
    from altdiffusion_clip.bulk.shards import ShardFolder
    from altdiffusion_clip.commands.loading import load_scorer

    prepare_output()
    columns = Columns(options.image_column, options.text_column, options.language_column, options.id_column)
    for source in options.sources:
        check_source(source, columns, options.image_root)
    devices = [device_of(name) for name in options.device.split(",")]
    scorer = load_scorer(options.model, devices[0], dtype_of("float32"))
    folder = ShardFolder(options.output, _plan(options, scorer))
    job = Job(
        tuple(options.sources),
        columns,
        options.shard_size,
        options.image_root,
        options.min_cosine,
    )
    score = _on_ray if options.engine == "ray" else _here
    with tqdm(desc="scoring", unit="row", unit_scale=True, file=sys.stderr) as bar:
        summary, dtype = score(options, job, folder, scorer, devices, bar.update)
    kept = {} if options.min_cosine is None else {"kept": summary.kept}
    report = {"folder": str(options.output), "rows": summary.rows, "without_score": summary.failed, **kept}
    if options.json:
        print(json.dumps({**report, "dtype": dtype}, ensure_ascii=False))
    else:
        tail = "" if options.min_cosine is None else f", {summary.kept} at {options.min_cosine} or above"
        print(f"{options.output}: {summary.rows} rows, {summary.failed} without a score{tail}")
    return not summary.failed


def _check(options: argparse.Namespace) -> None:
    for name in ("shard_size", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    if options.workers is not None and options.workers < 0:
        raise UserError("--workers must be 0 or more")
    if options.min_cosine is not None and not -1 <= options.min_cosine <= 1:
        raise UserError("--min-cosine must be between -1 and 1")
    check_ray_options(options)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError('scores are written with pyarrow; pip install "altdiffusion-clip[score]"') from None


def _here(
    options: argparse.Namespace,
    job: "Job",
    folder: "ShardFolder",
    scorer: "AltCLIPScorer",
    devices: "list[torch.device]",
    progress: Callable[[int], object],
) -> "tuple[Summary, str]":
    """Scores on this machine; gives the summary and the name of the dtype."""
    import copy

    from altdiffusion_clip.bulk.pictures import Workers, default_workers
    from altdiffusion_clip.bulk.scoring import Encoder, fastest_batch_size, fastest_dtype, score_sources

    dtype = fastest_dtype(scorer) if options.dtype == "auto" else dtype_of(options.dtype)
    others = [copy.deepcopy(scorer).to(device) for device in devices[1:]]
    encoders = [Encoder(each, dtype) for each in (scorer, *others)]
    size = options.batch_size or fastest_batch_size(encoders[0])
    for encoder in encoders:
        encoder.batch_size = size
    count = default_workers(scorer.device.type != "cpu") if options.workers is None else options.workers
    workers = Workers(encoders[0].image_processor, count, options.exact)
    try:
        return score_sources(job, folder, encoders, workers, progress), str(dtype).removeprefix("torch.")
    finally:
        workers.close()


def _on_ray(
    options: argparse.Namespace,
    job: "Job",
    folder: "ShardFolder",
    scorer: "AltCLIPScorer",
    devices: "list[torch.device]",
    progress: Callable[[int], object],
) -> "tuple[Summary, str]":
    """Scores on a Ray cluster; gives the summary and the name of the dtype."""
    del scorer, devices  # the plan has its fingerprint; each actor loads its own
    from altdiffusion_clip.bulk.pictures import default_workers
    from altdiffusion_clip.bulk.ray_engine import Model, connect, score_on_ray

    cluster = cluster_of(options)
    # What is faster on this machine says nothing of another's.
    dtype = options.dtype if options.dtype != "auto" else "float16" if cluster.gpus else "float32"
    count = default_workers(cluster.gpus > 0, int(cluster.cpus)) if options.workers is None else options.workers
    model = Model(options.model, dtype, options.batch_size, options.exact, count)
    connect(cluster)
    return score_on_ray(job, folder, model, cluster, progress), dtype


def _plan(options: argparse.Namespace, scorer: "AltCLIPScorer") -> dict[str, object]:
    """All that decides the scores, so that a folder is not mixed of two runs."""
    from altdiffusion_clip.evaluation.systems.base import fingerprint_of

    return {
        "sources": list(options.sources),
        "columns": [options.image_column, options.text_column, options.language_column, options.id_column],
        "image_root": options.image_root,
        "shard_size": options.shard_size,
        "model": fingerprint_of("altclip", scorer.state_dict().items()).hex(),
        "exact": options.exact,
        "dtype": options.dtype,
        "min_cosine": options.min_cosine,
    }
