"""`altdiffusion score`: how well pictures and texts fit, for whole data sets."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.commands.options import DTYPES, device_of, dtype_of, prepare_output
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
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
    parser.add_argument("--workers", type=int, help="processes that decode (default: the cores but two, 8 at most)")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at a time (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; default: a GPU if there is one")
    parser.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="of the arithmetic; auto measures which is faster"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of a sentence")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Scores. Returns whether every row has a score."""
    for name in ("shard_size", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    if options.workers is not None and options.workers < 0:
        raise UserError("--workers must be 0 or more")
    if options.min_cosine is not None and not -1 <= options.min_cosine <= 1:
        raise UserError("--min-cosine must be between -1 and 1")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError('scores are written with pyarrow; pip install "altdiffusion-clip[score]"') from None

    from tqdm import tqdm

    from altdiffusion_clip.bulk.pictures import Workers, default_workers
    from altdiffusion_clip.bulk.rows import Columns, kind_of
    from altdiffusion_clip.bulk.scoring import Encoder, fastest_dtype, score_sources
    from altdiffusion_clip.bulk.shards import ShardFolder
    from altdiffusion_clip.commands.loading import load_scorer

    prepare_output()
    for source in options.sources:
        kind_of(source)
    scorer = load_scorer(options.model, device_of(options.device), dtype_of("float32"))
    dtype = fastest_dtype(scorer) if options.dtype == "auto" else dtype_of(options.dtype)
    columns = Columns(options.image_column, options.text_column, options.language_column, options.id_column)
    folder = ShardFolder(options.output, _plan(options, scorer))
    encoder = Encoder(scorer, dtype, options.batch_size)
    workers = Workers(
        encoder.image_processor, default_workers() if options.workers is None else options.workers, options.exact
    )
    try:
        with tqdm(desc="scoring", unit="row", unit_scale=True, file=sys.stderr) as bar:
            summary = score_sources(
                options.sources,
                columns,
                folder,
                encoder,
                workers,
                options.shard_size,
                options.image_root,
                options.min_cosine,
                bar.update,
            )
    finally:
        workers.close()
    kept = {} if summary.kept is None else {"kept": summary.kept}
    report = {"folder": str(options.output), "rows": summary.rows, "without_score": summary.failed, **kept}
    if options.json:
        print(json.dumps({**report, "dtype": str(dtype).removeprefix("torch.")}, ensure_ascii=False))
    else:
        tail = "" if summary.kept is None else f", {summary.kept} at {options.min_cosine} or above"
        print(f"{options.output}: {summary.rows} rows, {summary.failed} without a score{tail}")
    return not summary.failed


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
