"""`altdiffusion evaluate zeroshot`: classifies pictures by the names of their classes."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype
from altdiffusion_clip.errors import UserError


def add_parser(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = what.add_parser(
        "zeroshot",
        aliases=["classification"],
        help="Measure zero-shot classification, by language.",
        description="Measure top-1, top-5 and mean recall per class in percent, as CLIP_benchmark defines them.\n\n"
        "The names of the classes are read from --classes, or from classnames_CODE.txt beside the data, one per "
        "line in the order of the labels. CIFAR-10's are built in, in English and Chinese. Sentences with {c} for "
        "the name are read from --templates, or from zeroshot_classification_templates.txt beside the data.",
        examples=["altdiffusion evaluate zeroshot data/cifar10 --languages en zh --judge BAAI/AltCLIP-m9"],
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="A folder with a folder of pictures per class, Parquet files as on the hub, or webdataset tars.",
    )
    add_judge_option(parser)
    parser.add_argument("--languages", nargs="+", default=["en"], metavar="CODE", help="Languages (default: en).")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="Names of the classes, for one language.")
    parser.add_argument("--templates", type=Path, metavar="FILE", help="Sentences, for one language.")
    parser.add_argument("--split", default="", help="Split (default: test or validation).")
    parser.add_argument("--allow-missing", action="store_true", help="Leave out pictures that cannot be read.")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="Pictures at a time (default: %(default)s)."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write everything to a .json file.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Write a page with plots and confusions.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per line, not a table.")
    add_cache_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Measures, prints, writes. Returns whether nothing was left out."""
    if options.batch_size < 1:
        raise UserError("--batch-size must be 1 or more")
    if (options.classes or options.templates) and len(options.languages) > 1:
        raise UserError("--classes and --templates are of one language; name one with --languages")
    if options.output and options.output.suffix != ".json":
        raise UserError(f"--output {options.output}: the name must end in .json")

    import numpy as np

    from altdiffusion_clip.commands.options import prepare_output
    from altdiffusion_clip.evaluation.datasets.classification import class_names, read_classification, templates_of
    from altdiffusion_clip.evaluation.tables import table
    from altdiffusion_clip.evaluation.zeroshot import class_vectors, zero_shot
    from altdiffusion_clip.evaluation.zeroshot_report import write_html
    from altdiffusion_clip.files import write_text
    from altdiffusion_clip.judges.ensembles import Panel
    from altdiffusion_clip.judges.judging import embed_pictures
    from altdiffusion_clip.judges.names import load_dual

    prepare_output()
    task = read_classification(options.folder, options.split)
    names = {code: class_names(task, code, options.classes) for code in options.languages}
    templates = {code: templates_of(task, code, options.templates) for code in options.languages}
    rows: list[dict[str, Any]] = []
    confusions = []
    left_out: list[str] = []
    for given in judges_of(options):
        judge = load_dual([given], *device_and_dtype(options))
        bench = bench_for(options, Panel([judge]), options.batch_size)
        encoded = embed_pictures(bench, task.images)
        if encoded.broken and not options.allow_missing:
            place, reason = encoded.broken[0]
            raise UserError(
                f"{len(encoded.broken)} of {len(task.images)} images cannot be read, the first is "
                f"{task.images[place].name}: {reason}; fix them, or skip them with --allow-missing"
            )
        left_out += [f"{task.images[place].name}: {reason}" for place, reason in encoded.broken]
        whole = np.isfinite(encoded.vectors).all(1)
        for code in options.languages:
            vectors = class_vectors(bench.encoder.texts, names[code], templates[code])
            result = zero_shot(encoded.vectors[whole], vectors, task.labels[whole])
            counts = {"images": int(whole.sum()), "classes": len(names[code])}
            rows.append({"system": judge.name, "language": code, **counts, **result.as_dict()})
            confusions.append(result.confusion)

    full = [{"dataset": task.name, **row, "unit": "percent"} for row in rows]
    if options.json:
        for row in full:
            print(json.dumps(row, ensure_ascii=False))
    else:
        print(table(f"{task.name}: zero-shot classification, percent", rows))
    for line in dict.fromkeys(left_out):
        print(f"skipped {line}", file=sys.stderr)
    if options.output:
        write_text(options.output, json.dumps(full, ensure_ascii=False, indent=1) + "\n")
    if options.html:
        write_html(options.html, task.name, rows, confusions, names)
    return not left_out
