"""`altdiffusion evaluate retrieval`: finds images by their texts and texts by their images."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    add_long_text_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.judges.encoding import Bench
    from altdiffusion_clip.judges.ensembles import Panel


def add_parser(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = what.add_parser(
        "retrieval",
        help="Measure retrieval between texts and pictures, by language.",
        description="Measure recall at 1, 5 and 10 in both directions, and their mean, for each judge and language. "
        "95% intervals and published figures are shown beside them. Nothing is downloaded.",
        examples=[
            "altdiffusion evaluate retrieval emoji --judge emoji-m18 --judge emoji-m18/teacher",
            "altdiffusion evaluate retrieval flickr30k data/flickr30k --judge BAAI/AltCLIP --html report.html",
        ],
    )
    parser.add_argument(
        "dataset",
        help="emoji (in the package), flickr30k, coco, coco-cn, muge (also for Flickr30k-CN and COCO-CN in its "
        "layout), xtd10, crossmodal-3600, webdataset, or jsonl.",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="Folder of the data set.")
    # Here a judge may also be a file of embeddings
    add_judge_option(parser)
    parser.add_argument("--languages", nargs="+", default=[], metavar="CODE", help="Languages (default: all).")
    parser.add_argument("--split", default="", help="Split (default: the one that published figures use).")
    parser.add_argument("--allow-missing", action="store_true", help="Leave out pictures that are missing or broken.")
    parser.add_argument(
        "--ties",
        choices=("mean", "first", "best", "worst"),
        default="mean",
        help="Rank of equally similar items: the mean of their ranks; in their order, as Chinese-CLIP's script does "
        "(first); or before or after the others (default: mean).",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="Pictures at a time (default: %(default)s)."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write everything to a .json file.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Write a page with plots and failures.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per line, not a table.")
    add_long_text_option(parser)
    add_cache_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Measures, prints, writes. Returns whether nothing was left out."""
    if options.batch_size < 1:
        raise UserError("--batch-size must be 1 or more")
    if options.output and options.output.suffix != ".json":
        raise UserError(f"--output {options.output}: the name must end in .json")

    from altdiffusion_clip.commands.options import prepare_output
    from altdiffusion_clip.evaluation.bench import measure, vectors_of
    from altdiffusion_clip.evaluation.datasets.names import read_dataset
    from altdiffusion_clip.evaluation.retrieval_report import as_json, as_text, write_html, write_json
    from altdiffusion_clip.judges.names import named

    prepare_output()
    task = read_dataset(options.dataset, options.folder, options.split, options.languages, options.allow_missing)
    left_out = [f"{name}: no such file" for name in task.missing]
    measured = []

    def bench_of(panel: "Panel") -> "Bench":
        return bench_for(options, panel, options.batch_size)

    for given in judges_of(options):
        name, spec = named(given)
        device, dtype = device_and_dtype(options)
        vectors = vectors_of(spec, task, device, dtype, bench_of, options.long_text)
        measured += measure(name, vectors, task, options.ties, options.allow_missing)
        left_out += [f"{image}: {reason}" for _, image, reason in vectors.broken]

    if options.json:
        for row in as_json(task, measured)["measured"]:
            print(json.dumps(row, ensure_ascii=False))
    else:
        print(as_text(task, measured))
    for line in dict.fromkeys(left_out):
        print(f"skipped {line}", file=sys.stderr)
    if options.output:
        write_json(options.output, task, measured)
    if options.html:
        write_html(options.html, task, measured)
    return not left_out
